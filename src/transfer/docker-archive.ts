import { createHash } from "node:crypto";
import { pipeline, Readable } from "node:stream";
import { createGzip } from "node:zlib";
import { detectCompression } from "../diff/media-types.ts";
import type { ContentStore } from "../model/content.ts";
import { LABEL_UNCOMPRESSED } from "../model/diff.ts";
import { BunkerdError, isError, quote, within } from "../model/errors.ts";
import { normalizeImageName } from "../model/image-names.ts";
import { MediaType } from "../model/media-types.ts";
import {
  ANNOTATION_IMAGE_NAME,
  ANNOTATION_REF_NAME,
  descriptorJson,
  goJson,
  type OciDescriptor,
  parseConfig,
} from "../model/oci.ts";
import { normalizePlatform } from "../model/platforms.ts";
import { parseReference } from "../model/references.ts";
import type { Scope } from "../model/scope.ts";
import { readBlob } from "./blob-bytes.ts";
import { readDocument } from "./documents.ts";
import type { ImportedBlob } from "./import.ts";
import { openWriter, writeBytes } from "./ingest.ts";

/*
 * Archives of `docker save` without an OCI layout: `manifest.json` names configs and layers by the paths of their files (image-spec v1.1, v1.2
 * of moby).
 */

interface DockerManifest {
  readonly config: string;
  readonly repoTags: readonly string[];
  readonly layers: readonly string[];
}

/** @throws Unknown */
export function parseDockerManifests(document: unknown): DockerManifest[] {
  if (!Array.isArray(document)) throw malformed("expected a list");
  return document.map((item: unknown) => {
    if (typeof item !== "object" || item === null) throw malformed("expected objects");
    const { Config, RepoTags, Layers } = item as Record<string, unknown>;
    if (typeof Config !== "string") throw malformed("Config is no text");
    return { config: Config, repoTags: texts(RepoTags, "RepoTags"), layers: texts(Layers, "Layers") };
  });
}

function texts(value: unknown, name: string): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
    throw malformed(`${name} is no list of texts`);
  return value;
}

function malformed(reason: string): BunkerdError {
  return new BunkerdError("Unknown", `untar manifest "manifest.json": ${reason}`);
}

/** Makes manifests and an index of them. @throws Unknown on a file that is not there, or a tag that is no name */
export async function indexDockerArchive(
  content: ContentStore,
  scope: Scope,
  manifests: readonly DockerManifest[],
  blobs: ReadonlyMap<string, ImportedBlob>,
  compress: boolean,
): Promise<OciDescriptor> {
  const entries: OciDescriptor[] = [];
  for (const { config: path, repoTags, layers: paths } of manifests) {
    const blob = blobs.get(path);
    if (blob === undefined) throw new BunkerdError("Unknown", `image config ${quote(path)} not found`);
    const config: OciDescriptor = { ...blob, mediaType: MediaType.dockerConfig };
    const layers = await resolveLayers(content, scope, paths, blobs, compress).catch((error: unknown) => {
      throw within("failed to resolve layers", error);
    });
    const mediaType = MediaType.dockerManifest;
    const manifest = {
      schemaVersion: 2,
      mediaType,
      config: descriptorJson(config),
      layers: layers.map(descriptorJson),
    };
    const written = await writeDocument(content, scope, mediaType, manifest);
    const { platform } = parseConfig(await readDocument(content, scope, config.digest), config.digest);
    const entry = { ...written, platform: normalizePlatform(platform) };
    if (repoTags.length === 0) entries.push(entry);
    for (const tag of repoTags)
      entries.push({ ...entry, annotations: nameAnnotations(normalizeImageName(tag)) });
  }
  const index = { schemaVersion: 2, manifests: entries.map(descriptorJson) };
  return await writeDocument(content, scope, MediaType.ociIndex, index);
}

/** How an archive's index names an image: whole, and by what OCI wants, its tag. */
export function nameAnnotations(name: string): Record<string, string> {
  const object = objectOf(name);
  const short = object === "" || object.startsWith("@") ? name : object;
  return { [ANNOTATION_IMAGE_NAME]: name, [ANNOTATION_REF_NAME]: short };
}

/** Empty for a name without one, or that is none. */
function objectOf(name: string): string {
  try {
    return parseReference(name).object;
  } catch (error) {
    if (isError(error, "InvalidArgument")) return "";
    throw error;
  }
}

async function writeDocument(
  content: ContentStore,
  scope: Scope,
  mediaType: string,
  document: object,
): Promise<OciDescriptor> {
  const bytes = Buffer.from(goJson(document));
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  await writeBytes(content, scope, { ref: `manifest-${digest}`, digest, bytes });
  return { mediaType, digest, size: bytes.length };
}

async function resolveLayers(
  content: ContentStore,
  scope: Scope,
  paths: readonly string[],
  blobs: ReadonlyMap<string, ImportedBlob>,
  compress: boolean,
): Promise<OciDescriptor[]> {
  const found = paths.map((path) => {
    const blob = blobs.get(path);
    if (blob === undefined) throw new BunkerdError("Unknown", `layer ${quote(path)} not found`);
    return blob;
  });
  const layers: OciDescriptor[] = [];
  for (const [at, blob] of found.entries()) {
    // Of a layer that comes several times the reference looks for the last one only, and the manifest's digest tells.
    const isLast = found.findLastIndex(({ digest }) => digest === blob.digest) === at;
    const known = isLast ? await compressedForm(content, scope, blob.digest) : undefined;
    if (known !== undefined) layers.push(known);
    else layers.push(await describeLayer(content, scope, blob, compress));
  }
  return layers;
}

/** A blob that holds this layer compressed, if there is one. */
async function compressedForm(
  content: ContentStore,
  scope: Scope,
  digest: string,
): Promise<OciDescriptor | undefined> {
  const infos = await content.list(scope, [`labels."${LABEL_UNCOMPRESSED}"==${digest}`]);
  const info = infos.at(-1);
  if (info === undefined) return undefined;
  const mediaType = await layerType(content, scope, info.digest);
  return { mediaType, digest: info.digest, size: Number(info.size) };
}

async function layerType(content: ContentStore, scope: Scope, digest: string): Promise<string> {
  const blob = await content.open(scope, digest);
  try {
    const start = Buffer.alloc(10);
    const count = await blob.read(start, 0);
    const isPlain = detectCompression(start.subarray(0, count)) === "none";
    return isPlain ? MediaType.dockerLayer : MediaType.dockerLayerGzip;
  } finally {
    await blob.close();
  }
}

async function describeLayer(
  content: ContentStore,
  scope: Scope,
  blob: ImportedBlob,
  compress: boolean,
): Promise<OciDescriptor> {
  const mediaType = await layerType(content, scope, blob.digest);
  if (!compress || mediaType !== MediaType.dockerLayer) return { ...blob, mediaType };
  return { ...(await compressLayer(content, scope, blob.digest)), mediaType: MediaType.dockerLayerGzip };
}

async function compressLayer(content: ContentStore, scope: Scope, digest: string): Promise<ImportedBlob> {
  const ref = `compress-blob-${digest.replace(":", "-")}`;
  const writer = await openWriter(content, scope, { ref });
  try {
    if (writer.status().offset > 0n) await writer.truncate();
    const gzip = createGzip();
    // Whatever goes wrong destroys the stream, which the loop below then throws.
    pipeline(Readable.from(readBlob(content, scope, digest)), gzip, () => undefined);
    let size = 0;
    for await (const piece of gzip) {
      size += (piece as Buffer).length;
      await writer.write(piece as Buffer);
    }
    const compressed = writer.digest();
    const labels = { [LABEL_UNCOMPRESSED]: digest };
    await writer.commit({ sizeBytes: BigInt(size), expected: compressed, labels }).catch((error: unknown) => {
      if (!isError(error, "AlreadyExists")) throw error;
    });
    return { digest: compressed, size };
  } catch (error) {
    await writer.close();
    await content.abort(scope, ref).catch((failure: unknown) => {
      if (!isError(failure, "NotFound")) throw failure;
    });
    throw error;
  } finally {
    await writer.close();
  }
}
