import { BunkerdError, fail } from "../model/errors.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { RequestBody } from "./exchange.ts";
import { UPLOAD_CHUNK_BYTES } from "./limits.ts";
import { type ApiAnswer, type ApiRequest, unexpectedStatus } from "./requests.ts";

/** Sends one request of an upload. */
export type SendUpload = (
  request: Partial<ApiRequest> & Pick<ApiRequest, "method" | "target">,
) => Promise<ApiAnswer>;

/**
 * Pushes a blob by pieces (distribution-spec, "Pushing a blob in chunks") and closes the upload. One piece is in memory at a time.
 * @throws Unknown with the registry's status, DataLoss if the source is shorter or longer
 */
export async function putInChunks(
  body: RequestBody,
  { digest, size }: OciDescriptor,
  location: URL,
  send: SendUpload,
): Promise<ApiAnswer> {
  let target = location;
  let start = 0;
  for await (const bytes of inChunks(body.open(), UPLOAD_CHUNK_BYTES)) {
    if (start + bytes.length > size)
      throw fail("DataLoss", `${digest}: the source has more than ${size} bytes`);
    const answer = await send({
      method: "PATCH",
      target,
      headers: {
        "content-type": "application/octet-stream",
        "content-range": `${start}-${start + bytes.length - 1}`,
      },
      body: {
        sizeBytes: bytes.length,
        open: async function* () {
          yield bytes;
        },
      },
    });
    if (answer.response.status > 299) throw await unexpectedStatus(answer);
    await answer.discard();
    const next = URL.parse(answer.response.headers.get("location") ?? target.href, answer.url.href);
    if (next === null || next.origin !== location.origin) {
      throw new BunkerdError("Unknown", `${answer.shown}: the upload moves to another host`);
    }
    target = next;
    start += bytes.length;
  }
  if (start !== size) throw fail("DataLoss", `${digest}: the source has ${start} bytes instead of ${size}`);
  const last = new URL(target.href);
  last.searchParams.append("digest", digest);
  return await send({ method: "PUT", target: last, headers: { "content-type": "application/octet-stream" } });
}

async function* inChunks(pieces: AsyncIterable<Uint8Array>, chunkBytes: number): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (let piece of pieces) {
    while (size + piece.length >= chunkBytes) {
      const cut = chunkBytes - size;
      yield Buffer.concat([...parts, piece.subarray(0, cut)]);
      piece = piece.subarray(cut);
      [parts, size] = [[], 0];
    }
    if (piece.length > 0) parts.push(piece);
    size += piece.length;
  }
  if (size > 0) yield Buffer.concat(parts);
}
