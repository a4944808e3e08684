import { readLayer } from "../diff/decompress.ts";
import type { ContentStore } from "../model/content.ts";
import { BunkerdError, isError, quote, within } from "../model/errors.ts";
import { MediaType } from "../model/media-types.ts";
import { type OciDescriptor, parseJson } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";
import { type ArchiveFile, readArchive, readWhole } from "./archive-reader.ts";
import { indexDockerArchive, parseDockerManifests } from "./docker-archive.ts";
import { MAX_DOCUMENT_BYTES } from "./documents.ts";
import { openWriter } from "./ingest.ts";

const LAYOUT_VERSION = "1.0.0";
/** Bytes go to the ingest in pieces of about this size: each write costs a turn of the loop. */
const WRITE_BYTES = 1 << 20;

export interface ImportedBlob {
  readonly digest: string;
  readonly size: number;
}

/**
 * Puts all files of an archive into content and answers the index of its images: an OCI layout's own, or one made of Docker's `manifest.json`
 * (containerd `core/images/archive` ImportIndex).
 * @param isRaw it is no compressed archive, whatever its first bytes say
 */
export async function importArchive(
  content: ContentStore,
  scope: Scope,
  bytes: AsyncIterable<Buffer>,
  { isRaw, compress }: { readonly isRaw: boolean; readonly compress: boolean },
): Promise<OciDescriptor> {
  const archive = readArchive(readLayer(bytes, isRaw ? "plain" : "sniffed"));
  const blobs = new Map<string, ImportedBlob>();
  let layout: string | undefined;
  let manifests: unknown;
  await archive.walk(async (file) => {
    if (file.name === "oci-layout") layout = layoutVersion(await readJson(file, "oci layout"));
    else if (file.name === "manifest.json") manifests = await readJson(file, "manifest");
    else blobs.set(file.name, await ingestFile(content, scope, file));
  });
  if (layout !== undefined && layout !== "") return layoutIndex(layout, blobs);
  if (manifests === undefined || manifests === null) throw unknown("unrecognized image format");
  for (const [name, target] of archive.links) {
    const blob = blobs.get(target);
    if (blob === undefined)
      throw unknown(`no target for symlink layer from ${quote(name)} to ${quote(target)}`);
    blobs.set(name, blob);
  }
  return await indexDockerArchive(content, scope, parseDockerManifests(manifests), blobs, compress);
}

function unknown(message: string): BunkerdError {
  return new BunkerdError("Unknown", message);
}

async function readJson(file: ArchiveFile, what: string): Promise<unknown> {
  const context = `untar ${what} ${quote(file.name)}`;
  try {
    return parseJson(await readWhole(file, MAX_DOCUMENT_BYTES), context);
  } catch (error) {
    throw isError(error, "Unknown") ? error : within(context, error);
  }
}

function layoutVersion(document: unknown): string {
  const version = (document as { imageLayoutVersion?: unknown } | null)?.imageLayoutVersion;
  return typeof version === "string" ? version : "";
}

function layoutIndex(version: string, blobs: ReadonlyMap<string, ImportedBlob>): OciDescriptor {
  if (version !== LAYOUT_VERSION) throw unknown(`unsupported OCI version ${version}`);
  const index = blobs.get("index.json");
  if (index === undefined) throw unknown(`missing index.json in OCI layout ${LAYOUT_VERSION}`);
  return { ...index, mediaType: MediaType.ociIndex };
}

async function ingestFile(content: ContentStore, scope: Scope, file: ArchiveFile): Promise<ImportedBlob> {
  const sizeBytes = BigInt(file.sizeBytes);
  try {
    const writer = await openWriter(content, scope, { ref: `tar-${file.name}`, totalBytes: sizeBytes });
    try {
      // What another archive left under this name need not be the same.
      if (writer.status().offset > 0n) await writer.truncate();
      // One for all of the file: the garbage of a large one would be most of the daemon's memory.
      const gathered = Buffer.allocUnsafeSlow(Math.min(WRITE_BYTES, file.sizeBytes));
      let count = 0;
      const flush = async (): Promise<void> => {
        await writer.write(gathered.subarray(0, count));
        count = 0;
      };
      for (let part = await file.read(); part.length > 0; part = await file.read()) {
        for (let taken = 0; taken < part.length; ) {
          const copied = part.copy(gathered, count, taken);
          taken += copied;
          count += copied;
          if (count === gathered.length) await flush();
        }
      }
      if (count > 0) await flush();
      const digest = writer.digest();
      await commit(() => writer.commit({ sizeBytes, expected: digest }));
      return { digest, size: file.sizeBytes };
    } finally {
      await writer.close();
    }
  } catch (error) {
    throw within(`failed to ingest ${quote(file.name)}`, error);
  }
}

/** That the namespace has the blob is what was wanted. */
async function commit(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw error;
  }
}
