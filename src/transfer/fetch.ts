import { failpoint } from "../lib/failpoint.ts";
import type { ContentStore, ContentWriter } from "../model/content.ts";
import { BunkerdError, fail, isError, quote, within } from "../model/errors.ts";
import { MediaType } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { Fetcher } from "../model/remotes.ts";
import type { Scope } from "../model/scope.ts";
import { refKeyOf } from "./documents.ts";
import { openWriter, throwIfGone } from "./ingest.ts";

/** Pieces from the network are written together up to this size: each write costs a turn of the loop. */
const WRITE_BYTES = 256 << 10;

/**
 * Brings a blob into the namespace, going on where an earlier try has ended (containerd `core/remotes` Fetch). Answers false if it was there.
 * @throws what the registry says, FailedPrecondition if what came is something else
 */
export async function fetchBlob(
  content: ContentStore,
  scope: Scope,
  fetcher: Fetcher,
  descriptor: OciDescriptor,
  onBytes: (bytes: number) => void,
): Promise<boolean> {
  const { mediaType, digest, size, data } = descriptor;
  if (mediaType === MediaType.dockerSchema1) throw new BunkerdError("Unknown", `${mediaType} not supported`);
  const ref = refKeyOf(descriptor);
  const origins = new Set<string>();
  try {
    const totalBytes = BigInt(size);
    const writer = await openWriter(content, scope, { ref, totalBytes, expected: digest, mediaType });
    try {
      if (size === 0) {
        const subject = `unable to fetch descriptor (${digest}) which reports content size of zero`;
        throw fail("InvalidArgument", subject);
      }
      const inline = data === undefined ? undefined : Buffer.from(data, "base64");
      const offset = Number(writer.status().offset);
      onBytes(offset);
      if (offset > size) await writer.truncate();
      if (offset !== size) {
        const from = offset > size ? 0 : offset;
        const { signal } = scope;
        const pieces =
          inline?.length === size
            ? [inline.subarray(from)]
            : fetcher.fetch(descriptor, {
                ...{ offsetBytes: from, verify: false, signal },
                onOrigin: (origin) => origins.add(origin),
              });
        await writePieces(writer, scope, pieces, from, onBytes, digest);
      }
      failpoint("transfer.fetched");
      await writer.commit({ sizeBytes: totalBytes, expected: digest });
      return true;
    } catch (error) {
      // What went wrong first is what is told.
      await writer.close().catch(() => undefined);
      if (!isError(error, "FailedPrecondition")) throw error;
      await forget(content, scope, ref);
      throw within(`failed commit on ref ${quote(ref)}${fromWhere(origins)}`, error);
    } finally {
      await writer.close();
    }
  } catch (error) {
    if (isError(error, "AlreadyExists")) return false;
    throw error;
  }
}

/** Who sent what is wrong. */
function fromWhere(origins: ReadonlySet<string>): string {
  return origins.size === 0 ? "" : ` from ${[...origins].join(", ")}`;
}

async function writePieces(
  writer: ContentWriter,
  scope: Scope,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  offset: number,
  onBytes: (bytes: number) => void,
  digest: string,
): Promise<void> {
  let written = offset;
  let parts: Uint8Array[] = [];
  let gathered = 0;
  const flush = async (): Promise<void> => {
    const [first = new Uint8Array(0)] = parts;
    await writer.write(parts.length === 1 ? first : Buffer.concat(parts, gathered));
    written += gathered;
    parts = [];
    gathered = 0;
  };
  try {
    for await (const piece of pieces) {
      parts.push(piece);
      gathered += piece.length;
      onBytes(written + gathered);
      if (gathered >= WRITE_BYTES) await flush();
      throwIfGone(scope, `fetch ${digest}`);
    }
  } finally {
    // What has come is kept, for the next try to go on with.
    if (gathered > 0) await flush();
  }
}

/** What is whole and wrong would be wrong the next time too. */
async function forget(content: ContentStore, { namespace, lease }: Scope, ref: string): Promise<void> {
  await content.abort({ namespace, lease }, ref).catch((error: unknown) => {
    if (!isError(error, "NotFound")) throw within(`abort ${ref}`, error);
  });
}
