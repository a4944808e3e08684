/*
 * Media types of layers: OCI image-spec `media-types.md`, Docker's distribution manifest v2. What each says of compression follows containerd
 * `core/images/mediatypes.go` DiffCompression.
 */

export const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
const OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER = "application/vnd.docker.image.rootfs";
/** May be compressed or not: the types are older than their suffix, so the first bytes decide. */
const DOCKER_SNIFFED: readonly string[] = [
  `${DOCKER}.diff.tar`,
  `${DOCKER}.foreign.diff.tar`,
  `${DOCKER}.diff.tar.gzip`,
  `${DOCKER}.foreign.diff.tar.gzip`,
  `${DOCKER}.diff.tar.zstd`,
];

/**
 * How a layer is to be read: `plain` as it stands, `sniffed` by its first bytes, whatever compression is named. Undefined if it is no
 * layer that can be read without a stream processor.
 */
export function layerReading(mediaType: string): "plain" | "sniffed" | undefined {
  const [base = "", ...suffixes] = mediaType.split("+");
  if (DOCKER_SNIFFED.includes(base)) return suffixes.length === 0 ? "sniffed" : "plain";
  if (base !== OCI_LAYER && base !== OCI_NONDISTRIBUTABLE) return undefined;
  // Suffixes are sorted before the last one counts.
  const last = suffixes.sort().at(-1);
  return last === "gzip" || last === "zstd" ? "sniffed" : "plain";
}

export type Compression = "none" | "gzip" | "zstd";

/** Compression of a layer to be made; undefined if we make none of that type (containerd `plugins/diff/walking`). */
export function layerCompression(mediaType: string): Compression | undefined {
  if (mediaType === OCI_LAYER) return "none";
  if (mediaType === `${OCI_LAYER}+gzip`) return "gzip";
  return mediaType === `${OCI_LAYER}+zstd` ? "zstd" : undefined;
}

/** By the first bytes: RFC 1952, RFC 8878 (a frame, or a skippable one). */
export function detectCompression(start: Buffer): Compression {
  if (start.length >= 3 && start.readUIntBE(0, 3) === 0x1f8b08) return "gzip";
  if (start.length < 4) return "none";
  const magic = start.readUInt32LE(0);
  const isSkippable = start.length >= 8 && magic >>> 4 === 0x184d2a5;
  return magic === 0xfd2fb528 || isSkippable ? "zstd" : "none";
}
