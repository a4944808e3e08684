import { promisify } from "node:util";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";

/** What a call answers as `grpc-accept-encoding` when its request's encoding is not known. */
export const ACCEPT_ENCODING = "identity,gzip";

/** Smaller answers are not worth their gzip header. */
const MIN_COMPRESSED_BYTES = 1024;

/** Loaded when a message first needs it: few clients compress. */
const zlib = () => process.getBuiltinModule("node:zlib");

/** @throws Unimplemented, worded as grpc-go's `server.go` */
export function checkEncoding(encoding: string): void {
  if (encoding === "gzip" || encoding === "identity" || encoding === "") return;
  throw new BunkerdError(
    "Unimplemented",
    `grpc: Decompressor is not installed for grpc-encoding ${quote(encoding)}`,
  );
}

/** Inflates one message. @throws ResourceExhausted as soon as it passes `maxBytes`, Internal if it is no gzip or was not announced */
export async function decompress(
  message: Uint8Array,
  encoding: string | undefined,
  maxBytes: number,
): Promise<Uint8Array> {
  if (encoding !== "gzip") {
    throw new BunkerdError("Internal", "grpc: compressed flag set with identity or empty encoding");
  }
  try {
    return await promisify(zlib().gunzip)(message, { maxOutputLength: maxBytes });
  } catch (error) {
    if (error instanceof RangeError || (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
      throw new BunkerdError(
        "ResourceExhausted",
        `grpc: received message after decompression larger than max ${maxBytes}`,
      );
    }
    throw new BunkerdError("Internal", `grpc: failed to read decompressed data: ${messageOf(error)}`);
  }
}

/** Deflates one message; undefined if that is not worth it. */
export async function compress(message: Uint8Array): Promise<Uint8Array | undefined> {
  if (message.length < MIN_COMPRESSED_BYTES) return undefined;
  const compressed = await promisify(zlib().gzip)(message);
  return compressed.length < message.length ? compressed : undefined;
}
