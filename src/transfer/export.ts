import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Image } from "#gen/containerd/services/images/v1/images_pb.ts";
import { DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import { TarType } from "../diff/tar/header.ts";
import { encodeHeader, encodeTrailer, paddingBytes } from "../diff/tar/writer.ts";
import type { Logger } from "../lib/log.ts";
import type { ContentStore } from "../model/content.ts";
import { digestFault } from "../model/digests.ts";
import { BunkerdError, fail, isError, within } from "../model/errors.ts";
import { familiarImageName } from "../model/image-names.ts";
import { isIndex, isManifest, isNonDistributable, MediaType } from "../model/media-types.ts";
import {
  ANNOTATION_IMAGE_NAME,
  descriptorJson,
  fromDescriptor,
  goJson,
  type OciDescriptor,
  parseIndex,
  parseManifest,
} from "../model/oci.ts";
import type { PlatformMatcher } from "../model/platforms.ts";
import type { Scope } from "../model/scope.ts";
import { readBlob } from "./blob-bytes.ts";
import { nameAnnotations } from "./docker-archive.ts";
import { childrenOf, readDocument } from "./documents.ts";
import { sortedByPlatform } from "./selection.ts";

const LABEL_SOURCE = "containerd.io/distribution.source";

export interface ExportOptions {
  /** Of indexes; the best one also stands in `manifest.json`. */
  readonly platforms: PlatformMatcher;
  /** The other platforms as well. */
  readonly allPlatforms: boolean;
  readonly skipDockerManifest: boolean;
  readonly skipNonDistributable: boolean;
}

interface Export {
  readonly content: ContentStore;
  readonly scope: Scope;
  readonly options: ExportOptions;
  readonly files: Map<string, ExportedFile>;
  /** Of the blobs that are exported. */
  readonly algorithms: Set<string>;
  /** For `manifest.json`: manifests by digest, with the names of their images. */
  readonly docker: Map<string, { readonly manifest: OciDescriptor; readonly names: string[] }>;
}

interface ExportedFile {
  readonly mode: number;
  readonly sizeBytes: number;
  /** Absent for folders. */
  readonly bytes?: () => AsyncIterable<Buffer>;
}

/**
 * Writes images as an archive that is an OCI layout and, unless that is skipped, `docker load`'s too (containerd `core/images/archive` Export).
 * @throws NotFound if a blob is missing or no platform matches, InvalidArgument on what is no image
 */
export async function exportImages(
  { content, logger }: { readonly content: ContentStore; readonly logger: Logger },
  scope: Scope,
  images: readonly Image[],
  options: ExportOptions,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const files = new Map<string, ExportedFile>();
  const made: Export = { content, scope, options, files, algorithms: new Set(), docker: new Map() };
  addText(made, "oci-layout", 0o444, goJson({ imageLayoutVersion: "1.0.0" }));
  const manifests: OciDescriptor[] = [];
  for (const image of images) {
    const target = await annotatedTarget(made, image, logger);
    if (target === undefined) continue;
    manifests.push(target);
    await addImage(made, target);
  }
  const index = {
    schemaVersion: 2,
    mediaType: MediaType.ociIndex,
    manifests: manifests.map(descriptorJson),
  };
  addText(made, "index.json", 0o644, goJson(index));
  if (!options.skipDockerManifest && made.docker.size > 0)
    addText(made, "manifest.json", 0o644, await dockerManifests(made));
  if (made.algorithms.size > 0) files.set("blobs/", { mode: 0o755, sizeBytes: 0 });
  for (const algorithm of made.algorithms) files.set(`blobs/${algorithm}/`, { mode: 0o755, sizeBytes: 0 });
  await writeArchive(files, write);
}

/** The image's target with its name and the registries that it came from; undefined, with a warning, if it is not there. */
async function annotatedTarget(
  { content, scope }: Export,
  { name, target = create(DescriptorSchema) }: Image,
  logger: Logger,
): Promise<OciDescriptor | undefined> {
  const descriptor = fromDescriptor(target);
  try {
    const { labels } = await content.info(scope, descriptor.digest);
    const sources = Object.entries(labels).filter(([key]) => key.startsWith(LABEL_SOURCE));
    const annotations = {
      ...descriptor.annotations,
      ...nameAnnotations(name),
      ...Object.fromEntries(sources),
    };
    return { ...descriptor, annotations };
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
    logger.warn("image is left out of the export: its content is not there", { name, error });
    return undefined;
  }
}

async function addImage(made: Export, target: OciDescriptor): Promise<void> {
  const name = target.annotations?.[ANNOTATION_IMAGE_NAME] ?? "";
  if (isManifest(target.mediaType)) {
    await addTree(made, target);
    addDockerName(made, target, name);
  } else if (isIndex(target.mediaType)) {
    const best = await addIndex(made, target);
    if (best !== undefined) addDockerName(made, best, name);
  } else throw fail("InvalidArgument", "only manifests may be exported");
}

/** Adds the index and what it names for the platforms; answers the manifest for the best of them. @throws NotFound if there is none */
async function addIndex(made: Export, target: OciDescriptor): Promise<OciDescriptor | undefined> {
  const { content, scope, options } = made;
  addBlob(made, target);
  const index = parseIndex(await readDocument(content, scope, target.digest), target);
  const matching = index.manifests.filter(({ platform }) => {
    return platform === undefined || options.platforms.match(platform);
  });
  for (const manifest of options.allPlatforms ? index.manifests : matching) await addTree(made, manifest);
  if (matching.length === 0) throw fail("NotFound", "no manifest found for platform");
  return sortedByPlatform(matching, options.platforms)[0];
}

function addDockerName(made: Export, manifest: OciDescriptor, name: string): void {
  const entry = made.docker.get(manifest.digest) ?? { manifest, names: [] };
  if (name !== "") entry.names.push(name);
  made.docker.set(manifest.digest, entry);
}

/** Adds a blob and all below it. */
async function addTree(made: Export, descriptor: OciDescriptor): Promise<void> {
  const { digest } = descriptor;
  const fault = digestFault(digest);
  if (fault !== undefined) throw new BunkerdError("Unknown", fault);
  made.algorithms.add(digest.slice(0, digest.indexOf(":")));
  const isKnown = made.files.has(pathOf(digest));
  addBlob(made, descriptor);
  if (isKnown) return;
  for (const child of await childrenOf(made.content, made.scope, descriptor)) await addTree(made, child);
}

function addBlob(
  { content, scope, options, files }: Export,
  { digest, size, mediaType }: OciDescriptor,
): void {
  if (options.skipNonDistributable && isNonDistributable(mediaType)) return;
  files.set(pathOf(digest), {
    mode: 0o444,
    sizeBytes: size,
    bytes: () => verifiedBlob(content, scope, digest),
  });
}

/** @throws DataLoss at the end of a blob that is not what its digest says */
async function* verifiedBlob(content: ContentStore, scope: Scope, digest: string): AsyncGenerator<Buffer> {
  const hash = createHash(digest.slice(0, digest.indexOf(":")));
  for await (const piece of readBlob(content, scope, digest)) {
    hash.update(piece);
    yield piece;
  }
  const found = hash.digest("hex");
  if (!digest.endsWith(`:${found}`)) throw fail("DataLoss", `unexpected digest ${found} of blob ${digest}`);
}

function addText({ files }: Export, name: string, mode: number, text: string): void {
  const data = Buffer.from(text);
  files.set(name, {
    mode,
    sizeBytes: data.length,
    async *bytes() {
      yield data;
    },
  });
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(":", "/")}`;
}

async function dockerManifests({ content, scope, docker }: Export): Promise<string> {
  const entries: object[] = [];
  for (const { manifest, names } of docker.values()) {
    const { config, layers } = parseManifest(await readDocument(content, scope, manifest.digest), manifest);
    const fault = digestFault(config.digest);
    if (fault !== undefined) throw new BunkerdError("Unknown", `unable to create manifests file: ${fault}`);
    const tags = names.map((name) => {
      try {
        return familiarImageName(name);
      } catch (error) {
        throw within("unable to create manifests file", error);
      }
    });
    entries.push({
      Config: pathOf(config.digest),
      RepoTags: tags.length === 0 ? null : tags,
      Layers: layers.length === 0 ? null : layers.map(({ digest }) => pathOf(digest)),
    });
  }
  return goJson(entries);
}

/** Ordered by name, so that the same images make the same archive. */
async function writeArchive(
  files: ReadonlyMap<string, ExportedFile>,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  for (const name of [...files.keys()].sort()) {
    const file = files.get(name);
    if (file === undefined) continue;
    await write(headerOf(name, file));
    if (file.bytes === undefined) continue;
    let written = 0;
    for await (const piece of file.bytes()) {
      written += piece.length;
      await write(piece);
    }
    if (written !== file.sizeBytes) throw new BunkerdError("Unknown", `unexpected copy size for ${name}`);
    const padding = paddingBytes(written);
    if (padding > 0) await write(Buffer.alloc(padding));
  }
  await write(encodeTrailer());
}

function headerOf(name: string, { mode, sizeBytes, bytes }: ExportedFile): Buffer {
  return encodeHeader({
    name,
    linkName: "",
    type: bytes === undefined ? TarType.directory : TarType.file,
    mode,
    uid: 0,
    gid: 0,
    sizeBytes,
    modified: { seconds: 0, nanoseconds: 0 },
    major: 0,
    minor: 0,
    xattrs: new Map(),
  });
}
