import type { ReadContentRequest } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { BlobReader } from "../model/content.ts";
import { BunkerdError, fail } from "../model/errors.ts";

/** Bytes in one message of Read: containerd's. */
const CHUNK_BYTES = 1 << 20;
/** Tag and varint of `offset`, tag and length of `data`, at their longest. */
const HEADER_BYTES = 1 + 10 + 1 + 5;

/** A piece of the answer: the bytes of the blob are at the end of `buffer`, behind `headroomBytes` to write into. */
interface Chunk {
  readonly buffer: Uint8Array;
  readonly headroomBytes: number;
  /** Where the piece begins, counted from the first byte of the answer. */
  readonly offset: number;
}

/** The range of a blob in messages that are encoded already: the bytes are read to where they are sent from. */
export async function* readEncoded(
  reader: BlobReader,
  request: ReadContentRequest,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of readChunks(reader, request, HEADER_BYTES)) yield encode(chunk);
}

/** The same as fields. */
export async function* readFields(
  reader: BlobReader,
  request: ReadContentRequest,
): AsyncGenerator<{ offset: bigint; data: Uint8Array }> {
  for await (const { buffer, offset } of readChunks(reader, request, 0)) {
    yield { offset: BigInt(offset), data: buffer };
  }
}

/**
 * Reads one piece ahead of the one that is being sent, and closes `reader`.
 * @throws OutOfRange if the range begins behind the end, worded as containerd's
 */
async function* readChunks(
  reader: BlobReader,
  request: ReadContentRequest,
  headroomBytes: number,
): AsyncGenerator<Chunk> {
  let ahead: Promise<Uint8Array> | undefined;
  try {
    const { start, end } = rangeOf(reader.sizeBytes, request);
    const readAt = (position: number): Promise<Uint8Array> | undefined => {
      if (position >= end) return undefined;
      const promise = readPiece(reader, position, Math.min(CHUNK_BYTES, end - position), headroomBytes);
      // Its failure is thrown when its turn comes; until then it is no unhandled rejection.
      promise.catch(() => undefined);
      return promise;
    };
    ahead = readAt(start);
    for (let position = start; ahead !== undefined; position += CHUNK_BYTES) {
      const buffer: Uint8Array = await ahead;
      ahead = readAt(position + CHUNK_BYTES);
      yield { buffer, headroomBytes, offset: position - start };
    }
  } finally {
    await ahead?.catch(() => undefined);
    await reader.close();
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

async function readPiece(
  reader: BlobReader,
  position: number,
  sizeBytes: number,
  headroomBytes: number,
): Promise<Uint8Array> {
  const memory = Buffer.allocUnsafeSlow(headroomBytes + sizeBytes);
  const buffer = new Uint8Array(memory.buffer, memory.byteOffset, memory.length);
  for (let done = 0; done < sizeBytes; ) {
    const count = await reader.read(buffer.subarray(headroomBytes + done), position + done);
    if (count === 0) throw fail("DataLoss", `blob ends at byte ${position + done} of ${reader.sizeBytes}`);
    done += count;
  }
  return buffer;
}

/** ReadContentResponse: `offset` (1, int64), which is left out when 0, and `data` (2, bytes). */
function encode({ buffer, headroomBytes, offset }: Chunk): Uint8Array {
  const header: number[] = [];
  if (offset > 0) header.push(0x08, ...varint(offset));
  header.push(0x12, ...varint(buffer.length - headroomBytes));
  const start = headroomBytes - header.length;
  buffer.set(header, start);
  return buffer.subarray(start);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return bytes;
}
