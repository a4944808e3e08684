/** Archives of images in the forms that `ctr images import` takes, and their blobs for a registry. */
import { gzipSync } from "node:zlib";
import { digestOf, type TarEntry, tar } from "./tar.ts";

export interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const oci = (name: string): string => `application/vnd.oci.image.${name}`;

/** Blobs of an image by digest, gathered by the functions below. */
export class Layout {
  readonly blobs = new Map<string, Buffer>();

  put(bytes: Buffer, mediaType: string): Blob {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  }

  /** An image of gzip layers for a platform. */
  image(layers: readonly Buffer[], architecture: string, extra: object = {}): Blob {
    const config = this.put(
      json({
        architecture,
        os: "linux",
        ...extra,
        rootfs: { type: "layers", diff_ids: layers.map(digestOf) },
      }),
      oci("config.v1+json"),
    );
    const mediaType = oci("manifest.v1+json");
    const packed = layers.map((layer) => this.put(gzipSync(layer), oci("layer.v1.tar+gzip")));
    return this.put(json({ schemaVersion: 2, mediaType, config, layers: packed }), mediaType);
  }

  /** An index of images by architecture. */
  index(images: Readonly<Record<string, Blob>>): Blob {
    const mediaType = oci("index.v1+json");
    const manifests = Object.entries(images).map(([architecture, image]) => ({
      ...image,
      platform: { architecture, os: "linux" },
    }));
    return this.put(json({ schemaVersion: 2, mediaType, manifests }), mediaType);
  }

  /** The whole as an OCI layout, each target with its annotations. */
  archive(targets: readonly (Blob & { readonly annotations?: Readonly<Record<string, string>> })[]): Buffer {
    return tar([
      { name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' },
      { name: "index.json", data: json({ schemaVersion: 2, manifests: targets }) },
      ...[...this.blobs].map(([digest, data]) => ({ name: `blobs/${digest.replace(":", "/")}`, data })),
    ]);
  }
}

/** As `docker save` of old wrote it: a folder a layer, the second a link to the first where they are the same. */
export function dockerArchive(
  tags: readonly string[] | null,
  layers: readonly Buffer[],
  architecture = "amd64",
): Buffer {
  const config = json({
    architecture,
    os: "linux",
    rootfs: { type: "layers", diff_ids: layers.map(digestOf) },
  });
  const configName = `${digestOf(config).slice("sha256:".length)}.json`;
  const entries: TarEntry[] = [];
  const paths = layers.map((layer, at) => {
    const name = `layer${at}/`;
    const same = layers.findIndex((other) => other.equals(layer));
    entries.push({ name, type: "5", mode: 0o755 }, { name: `${name}VERSION`, data: "1.0" });
    if (same === at) entries.push({ name: `${name}layer.tar`, data: layer });
    else entries.push({ name: `${name}layer.tar`, type: "2", link: `../layer${same}/layer.tar` });
    return `${name}layer.tar`;
  });
  const manifest = json([{ Config: configName, RepoTags: tags, Layers: paths }]);
  return tar([
    ...entries,
    { name: configName, data: config },
    { name: "manifest.json", data: manifest },
    { name: "repositories", data: "{}" },
  ]);
}
