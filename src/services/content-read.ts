import type { ReadContentRequest } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { BlobReader } from "../model/content.ts";
import { BunkerdError } from "../model/errors.ts";
import { FramedMessage } from "../transport/grpc/framed-message.ts";

/** Bytes in one message of Read: containerd's. */
const CHUNK_BYTES = 1 << 20;

interface Piece {
  readonly position: number;
  readonly sizeBytes: number;
  /** Where the piece begins, counted from the first byte of the answer. */
  readonly offset: number;
}

/** The range of a blob in messages that are encoded already: the bytes are read to where they are sent from. Closes `reader`. */
export async function* readEncoded(
  reader: BlobReader,
  request: ReadContentRequest,
): AsyncGenerator<FramedMessage> {
  try {
    for (const { position, sizeBytes, offset } of piecesOf(reader.sizeBytes, request)) {
      const header = headerOf(offset, sizeBytes);
      const message = new FramedMessage(header.length + sizeBytes);
      message.from(0)[0]?.set(header);
      await reader.fill(message.from(header.length), position);
      yield message;
    }
  } finally {
    await reader.close();
  }
}

/** The same as fields. */
export async function* readFields(
  reader: BlobReader,
  request: ReadContentRequest,
): AsyncGenerator<{ offset: bigint; data: Uint8Array }> {
  try {
    for (const { position, sizeBytes, offset } of piecesOf(reader.sizeBytes, request)) {
      const memory = Buffer.allocUnsafeSlow(sizeBytes);
      const data = new Uint8Array(memory.buffer, memory.byteOffset, memory.length);
      await reader.fill([data], position);
      yield { offset: BigInt(offset), data };
    }
  } finally {
    await reader.close();
  }
}

/** @throws OutOfRange if the range begins behind the end, worded as containerd's */
function* piecesOf(blobBytes: number, request: ReadContentRequest): Generator<Piece, void> {
  const { start, end } = rangeOf(blobBytes, request);
  for (let position = start; position < end; position += CHUNK_BYTES) {
    yield { position, sizeBytes: Math.min(CHUNK_BYTES, end - position), offset: position - start };
  }
}

/** A size of 0 or less, or beyond the end, means up to the end; a negative offset means the beginning. */
function rangeOf(sizeBytes: number, { offset, size }: ReadContentRequest): { start: number; end: number } {
  const all = BigInt(sizeBytes);
  const start = offset < 0n ? 0n : offset;
  if (start > all) throw new BunkerdError("OutOfRange", `read past object length ${all} bytes`);
  const end = size <= 0n || start + size > all ? all : start + size;
  return { start: Number(start), end: Number(end) };
}

/** ReadContentResponse up to its data: `offset` (1, int64), which is left out when 0, and tag and length of `data` (2, bytes). */
function headerOf(offset: number, sizeBytes: number): number[] {
  const header: number[] = [];
  if (offset > 0) header.push(0x08, ...varint(offset));
  header.push(0x12, ...varint(sizeBytes));
  return header;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return bytes;
}
