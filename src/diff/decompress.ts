import { pipeline, Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { fail, messageOf } from "../model/errors.ts";
import { detectCompression } from "./media-types.ts";
import { ZstdFrames } from "./zstd-frames.ts";

/** Large pieces: each costs a turn of the loop and the waking of a thread. */
const CHUNK_BYTES = 512 << 10;
/** What tells a compression. */
const START_BYTES = 10;

/**
 * The layer in a blob that comes in pieces: as it is, or decompressed as its first bytes say. The next piece is decompressed by a
 * thread of its own while the last one is used. @throws Unknown on broken compression, and what `pieces` throws
 */
export async function* readLayer(
  pieces: AsyncIterable<Buffer>,
  reading: "plain" | "sniffed",
): AsyncGenerator<Buffer> {
  if (reading === "plain") {
    yield* pieces;
    return;
  }
  const iterator = pieces[Symbol.asyncIterator]();
  let start: Buffer = Buffer.alloc(0);
  let isAll = false;
  while (start.length < START_BYTES && !isAll) {
    const { value, done } = await iterator.next();
    if (done === true) isAll = true;
    else start = start.length === 0 ? value : Buffer.concat([start, value]);
  }
  const all = prepend(start, iterator);
  const compression = detectCompression(start);
  if (compression === "none") yield* all;
  else yield* decompress(all, compression);
}

async function* prepend(start: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (start.length > 0) yield start;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function* decompress(
  pieces: AsyncIterable<Buffer>,
  compression: "gzip" | "zstd",
): AsyncGenerator<Buffer> {
  const options = { chunkSize: CHUNK_BYTES, readableHighWaterMark: 2 * CHUNK_BYTES };
  const stream = compression === "gzip" ? createGunzip(options) : createZstdDecompress(options);
  let sourceFailure: unknown;
  let readBytes = 0;
  const whole = compression === "gzip" ? pieces : wholeFrames(pieces);
  const source = Readable.from(
    watched(whole, {
      read: (bytes) => (readBytes += bytes),
      failed: (error) => (sourceFailure ??= error),
    }),
  );
  // Whatever goes wrong destroys the stream, which the loop below then throws.
  pipeline(source, stream, () => undefined);
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    if (sourceFailure !== undefined) throw sourceFailure;
    throw fail("Unknown", `decompress layer: ${compression}: ${messageOf(error)}`, { cause: error });
  }
  // zlib takes zeros behind the data, and all that follows them, for padding.
  if (compression === "gzip" && stream.bytesWritten < readBytes)
    throw fail("Unknown", "decompress layer: gzip: invalid header");
}

async function* wholeFrames(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const frames = new ZstdFrames();
  for await (const piece of pieces) {
    frames.push(piece);
    yield piece;
  }
  frames.end();
}

async function* watched(
  pieces: AsyncIterable<Buffer>,
  { read, failed }: { read: (bytes: number) => void; failed: (error: unknown) => void },
): AsyncGenerator<Buffer> {
  try {
    for await (const piece of pieces) {
      read(piece.length);
      yield piece;
    }
  } catch (error) {
    failed(error);
    throw error;
  }
}
