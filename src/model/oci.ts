import { create } from "@bufbuild/protobuf";
import { type Descriptor, DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import { BunkerdError, quote } from "./errors.ts";
import { isIndex, isManifest } from "./media-types.ts";
import type { Platform } from "./platforms.ts";

/*
 * Documents of the OCI image-spec: descriptors, indexes, manifests, configs; what Docker's say in other words is the same. Read from
 * strangers: every field is checked, what nobody needs is passed over.
 */

/** What a document says of a blob (image-spec `descriptor.md`). The API's {@link Descriptor} knows less. */
export interface OciDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  /** The blob itself, base64. */
  readonly data?: string;
  readonly platform?: Platform;
  readonly artifactType?: string;
}

export interface OciManifest {
  readonly config: OciDescriptor;
  readonly layers: readonly OciDescriptor[];
}

export interface OciIndex {
  readonly manifests: readonly OciDescriptor[];
}

/** What unpacking needs of an image's config. */
export interface OciConfig {
  readonly platform: Platform;
  readonly rootfsType: string;
  readonly diffIds: readonly string[];
}

export const ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name";
/** The whole name of the image (containerd `core/images/annotations.go`). */
export const ANNOTATION_IMAGE_NAME = "io.containerd.image.name";

type Json = Readonly<Record<string, unknown>>;

/** @throws Unknown, as containerd has it, naming `what` */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BunkerdError("Unknown", `${what}: ${reason}`, { cause });
  }
}

/** @throws Unknown on what is no index, or says that it is a manifest */
export function parseIndex(bytes: Uint8Array, { digest, mediaType }: OciDescriptor): OciIndex {
  const document = documentOf(bytes, digest);
  if (
    hasItems(document["config"]) ||
    hasItems(document["layers"]) ||
    isManifest(text(document["mediaType"]))
  ) {
    throw mismatch(digest, `expected index but found manifest (${mediaType})`);
  }
  return { manifests: descriptors(document["manifests"], `index ${digest}`) };
}

/** @throws Unknown on what is no manifest, or says that it is an index */
export function parseManifest(bytes: Uint8Array, { digest, mediaType }: OciDescriptor): OciManifest {
  const document = documentOf(bytes, digest);
  if (hasItems(document["manifests"]) || isIndex(text(document["mediaType"]))) {
    throw mismatch(digest, `expected manifest but found index (${mediaType})`);
  }
  const what = `manifest ${digest}`;
  const config = parseDescriptor(document["config"] ?? {}, what);
  return { config, layers: descriptors(document["layers"], what) };
}

function documentOf(bytes: Uint8Array, digest: string): Json {
  const document = object(parseJson(bytes, `children: invalid desc ${digest}`), digest);
  if (hasItems(document["fsLayers"])) throw mismatch(digest, "schema 1 not supported");
  return document;
}

function mismatch(digest: string, reason: string): BunkerdError {
  return new BunkerdError("Unknown", `children: invalid desc ${digest}: media-type: ${reason}`);
}

/** Whether a field is there at all: containerd looks at the length of its text. */
function hasItems(value: unknown): boolean {
  return value !== undefined;
}

/** @throws Unknown */
export function parseConfig(bytes: Uint8Array, digest: string): OciConfig {
  const what = `image config ${digest}`;
  const document = object(parseJson(bytes, `unmarshal ${what}`), what);
  const rootfs = object(document["rootfs"] ?? {}, what);
  return {
    platform: parsePlatformObject(document, what),
    rootfsType: text(rootfs["type"]),
    diffIds: texts(rootfs["diff_ids"], `${what}: diff_ids`),
  };
}

function descriptors(value: unknown, what: string): OciDescriptor[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw malformed(what, "expected a list of descriptors");
  return value.map((item) => parseDescriptor(item, what));
}

/** @throws Unknown, naming `what` holds it */
export function parseDescriptor(value: unknown, what: string): OciDescriptor {
  const fields = object(value, `${what}: descriptor`);
  const size = fields["size"] ?? 0;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw malformed(what, `invalid size ${quote(String(size))} of descriptor`);
  }
  const { platform, urls, annotations, data, artifactType } = fields;
  return {
    mediaType: checkedText(fields["mediaType"], what),
    digest: checkedText(fields["digest"], what),
    size,
    ...(isAbsent(urls) ? {} : { urls: texts(urls, what) }),
    ...(isAbsent(annotations) ? {} : { annotations: textMap(annotations, what) }),
    ...(isAbsent(data) ? {} : { data: checkedText(data, what) }),
    ...(isAbsent(platform) ? {} : { platform: parsePlatformObject(object(platform, what), what) }),
    ...(isAbsent(artifactType) ? {} : { artifactType: checkedText(artifactType, what) }),
  };
}

function parsePlatformObject(fields: Json, what: string): Platform {
  return {
    os: checkedText(fields["os"], what),
    architecture: checkedText(fields["architecture"], what),
    variant: checkedText(fields["variant"], what),
    osVersion: checkedText(fields["os.version"], what),
    osFeatures: texts(fields["os.features"], what),
  };
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}

function object(value: unknown, what: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw malformed(what, "expected an object");
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function checkedText(value: unknown, what: string): string {
  if (isAbsent(value)) return "";
  if (typeof value === "string") return value;
  throw malformed(what, `expected a text, not ${quote(JSON.stringify(value))}`);
}

function texts(value: unknown, what: string): string[] {
  if (isAbsent(value)) return [];
  if (!Array.isArray(value)) throw malformed(what, "expected a list of texts");
  return value.map((item) => checkedText(item, what));
}

function textMap(value: unknown, what: string): Record<string, string> {
  const entries = Object.entries(object(value, what));
  return Object.fromEntries(entries.map(([key, item]) => [key, checkedText(item, what)]));
}

function malformed(what: string, reason: string): BunkerdError {
  return new BunkerdError("Unknown", `${what}: ${reason}`);
}

/** What the API and the database keep of it. */
export function toDescriptor({ mediaType, digest, size, annotations = {} }: OciDescriptor): Descriptor {
  return create(DescriptorSchema, {
    mediaType,
    digest,
    size: BigInt(size),
    annotations: { ...annotations },
  });
}

export function fromDescriptor({ mediaType, digest, size, annotations }: Descriptor): OciDescriptor {
  const named = Object.keys(annotations).length > 0 ? { annotations: { ...annotations } } : {};
  return { mediaType, digest, size: Number(size), ...named };
}

/** The fields in the order in which Go writes them, what is empty left out, so that the same document gets the same digest. */
export function descriptorJson(descriptor: OciDescriptor): Json {
  const { mediaType, digest, size, urls = [], annotations = {}, data, platform, artifactType } = descriptor;
  const sorted = Object.keys(annotations).sort(byBytes);
  return {
    mediaType,
    digest,
    size,
    ...(urls.length > 0 ? { urls } : {}),
    ...(sorted.length > 0
      ? { annotations: Object.fromEntries(sorted.map((key) => [key, annotations[key]])) }
      : {}),
    ...(data !== undefined && data !== "" ? { data } : {}),
    ...(platform === undefined ? {} : { platform: platformJson(platform) }),
    ...(artifactType !== undefined && artifactType !== "" ? { artifactType } : {}),
  };
}

function platformJson({ architecture, os, osVersion, osFeatures, variant }: Platform): Json {
  return {
    architecture,
    os,
    ...(osVersion === "" ? {} : { "os.version": osVersion }),
    ...(osFeatures.length === 0 ? {} : { "os.features": osFeatures }),
    ...(variant === "" ? {} : { variant }),
  };
}

/** JSON as Go's `encoding/json` writes it: characters that mean something in HTML are escaped. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(/[<>&\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
