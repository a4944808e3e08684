import type { ContentStore } from "../model/content.ts";
import { fail } from "../model/errors.ts";
import { isAttestation, isIndex, isKnownConfig, isLayer, isManifest } from "../model/media-types.ts";
import { ANNOTATION_REF_NAME, type OciDescriptor, parseIndex, parseManifest } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";

/** Larger documents are refused: they are read into memory. */
export const MAX_DOCUMENT_BYTES = 20 << 20;

/** Reads a whole blob. @throws NotFound, DataLoss, ResourceExhausted on one that is no document by its size */
export async function readDocument(content: ContentStore, scope: Scope, digest: string): Promise<Uint8Array> {
  const blob = await content.open(scope, digest);
  try {
    if (blob.sizeBytes > MAX_DOCUMENT_BYTES) {
      throw fail("ResourceExhausted", `document ${digest} of ${blob.sizeBytes} bytes`);
    }
    const bytes = new Uint8Array(blob.sizeBytes);
    for (let at = 0; at < bytes.length; ) {
      const count = await blob.read(bytes.subarray(at), at);
      if (count === 0) throw fail("DataLoss", `blob ${digest} ends at byte ${at}`);
      at += count;
    }
    return bytes;
  } finally {
    await blob.close();
  }
}

/** What an index or a manifest holds, in its order; of anything else nothing. @throws NotFound, Unknown on a document that is none */
export async function childrenOf(
  content: ContentStore,
  scope: Scope,
  descriptor: OciDescriptor,
): Promise<readonly OciDescriptor[]> {
  const { mediaType, digest } = descriptor;
  if (isManifest(mediaType)) {
    const { config, layers } = parseManifest(await readDocument(content, scope, digest), descriptor);
    return [config, ...layers];
  }
  if (isIndex(mediaType)) {
    return parseIndex(await readDocument(content, scope, digest), descriptor).manifests;
  }
  return [];
}

/** Name of an ingest, and of a line of progress (containerd `core/remotes` MakeRefKey). */
export function refKeyOf({ mediaType, digest, annotations = {} }: OciDescriptor): string {
  const name = annotations[ANNOTATION_REF_NAME];
  return `${kindOf(mediaType)}-${name === undefined ? digest : `${name}@${digest}`}`;
}

function kindOf(mediaType: string): string {
  if (isManifest(mediaType)) return "manifest";
  if (isIndex(mediaType)) return "index";
  if (isLayer(mediaType)) return "layer";
  if (isKnownConfig(mediaType)) return "config";
  return isAttestation(mediaType) ? "attestation" : "unknown";
}
