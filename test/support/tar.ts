/** Archives built in code, right and wrong ones: a writer of its own, so that it shares no mistake with the product's. */
import { createHash } from "node:crypto";

export interface TarEntry {
  readonly name: string | Uint8Array;
  /** `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` directory, `6` FIFO … */
  readonly type?: string;
  readonly data?: string | Uint8Array;
  readonly link?: string | Uint8Array;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly device?: readonly [number, number];
  /** The size field, if it is not to be the data's. */
  readonly size?: number;
  /** Records of a PAX header before the entry. */
  readonly pax?: Readonly<Record<string, string | Uint8Array>> | readonly (readonly [string, string])[];
  /** Changes the finished header; the checksum is made after it. */
  readonly patch?: (header: Buffer) => void;
  readonly checksum?: number;
}

/** An archive with its end; `end: false` leaves the two blocks of zeros out. */
export function tar(entries: readonly TarEntry[], { end = true } = {}): Buffer {
  return Buffer.concat([...entries.map(encode), Buffer.alloc(end ? 1024 : 0)]);
}

function encode(entry: TarEntry): Buffer {
  const { pax, data = "" } = entry;
  const body = Buffer.from(data as Uint8Array);
  const header = headerOf(entry, entry.size ?? body.length);
  const parts = [header, body, padding(body.length)];
  if (pax === undefined) return Buffer.concat(parts);
  const records = Array.isArray(pax) ? pax : Object.entries(pax);
  const text = Buffer.concat(records.map(([key, value]) => record(key, value)));
  return Buffer.concat([
    headerOf({ name: "PaxHeaders.0/x", type: "x" }, text.length),
    text,
    padding(text.length),
    ...parts,
  ]);
}

export function record(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as Uint8Array), Buffer.from("\n")]);
  let length = rest.length;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function headerOf(entry: TarEntry, size: number): Buffer {
  const { name, type = "0", link = "", mode = 0o644, uid = 0, gid = 0, mtime = 1_700_000_000 } = entry;
  const header = Buffer.alloc(512);
  Buffer.from(name as Uint8Array).copy(header, 0, 0, 100);
  header.write(octal(mode, 8), 100);
  header.write(octal(uid, 8), 108);
  header.write(octal(gid, 8), 116);
  header.write(octal(size, 12), 124);
  header.write(octal(mtime, 12), 136);
  header.write(type, 156, "latin1");
  Buffer.from(link as Uint8Array).copy(header, 157, 0, 100);
  header.write("ustar\0" + "00", 257, "latin1");
  header.write(octal(entry.device?.[0] ?? 0, 8), 329);
  header.write(octal(entry.device?.[1] ?? 0, 8), 337);
  entry.patch?.(header);
  header.fill(" ", 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${(entry.checksum ?? sum).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return header;
}

/** GNU tar's long name (`L`) or long link (`K`), to stand before its entry. */
export function gnuLong(type: "L" | "K", text: string): TarEntry {
  return { name: "././@LongLink", type, data: `${text}\0` };
}

function octal(value: number, length: number): string {
  return value.toString(8).padStart(length - 1, "0");
}

function padding(bytes: number): Buffer {
  return Buffer.alloc((512 - (bytes % 512)) % 512);
}

export interface BuiltImage {
  /** An OCI layout as an archive, for `ctr images import`. */
  readonly archive: Buffer;
  readonly chainIds: readonly string[];
  readonly layers: readonly { readonly digest: string; readonly blob: Buffer }[];
  /** Config, layers and manifest by digest, for a registry. */
  readonly blobs: ReadonlyMap<string, Uint8Array>;
  readonly manifest: { readonly digest: string; readonly mediaType: string };
}

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** An image of layers (as archives), each packed by `pack`. */
export function buildImage(
  reference: string,
  layers: readonly Buffer[],
  pack: (layer: Buffer) => {
    readonly blob: Uint8Array;
    readonly mediaType: string;
    readonly annotations?: Readonly<Record<string, string>>;
  },
  config: object = {},
): BuiltImage {
  const blobs = new Map<string, Uint8Array>();
  const put = (bytes: Uint8Array, mediaType: string) => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const packed = layers.map(pack);
  const diffIds = layers.map(digestOf);
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: put(
      json({ architecture: "amd64", os: "linux", config, rootfs: { type: "layers", diff_ids: diffIds } }),
      "application/vnd.oci.image.config.v1+json",
    ),
    layers: packed.map(({ blob, mediaType, annotations }) => ({
      ...put(blob, mediaType),
      ...(annotations && { annotations }),
    })),
  };
  const descriptor = put(json(manifest), manifest.mediaType);
  const index = {
    schemaVersion: 2,
    manifests: [{ ...descriptor, annotations: { "io.containerd.image.name": reference } }],
  };
  const archive = tar([
    { name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' },
    { name: "index.json", data: json(index) },
    ...[...blobs].map(([digest, data]) => ({ name: `blobs/${digest.replace(":", "/")}`, data })),
  ]);
  const chainIds: string[] = [];
  for (const diffId of diffIds) {
    const parent = chainIds.at(-1);
    chainIds.push(parent === undefined ? diffId : digestOf(Buffer.from(`${parent} ${diffId}`)));
  }
  const built = packed.map(({ blob }) => ({ digest: digestOf(blob), blob: Buffer.from(blob) }));
  return { archive, chainIds, layers: built, blobs, manifest: descriptor };
}
