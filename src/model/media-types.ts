/*
 * Media types of what images are made of: OCI image-spec `media-types.md`, Docker's distribution manifest v2. Which belongs to which kind follows
 * containerd `core/images/mediatypes.go`.
 */

export const MediaType = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  /** Refused by name: nobody reads it any more. */
  dockerSchema1: "application/vnd.docker.distribution.manifest.v1+prettyjws",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  /** What old registries say of a config (distribution#1622). */
  unknown: "application/octet-stream",
} as const;

const OCI_LAYER_PREFIX = "application/vnd.oci.image.layer.";
const DOCKER_LAYERS: ReadonlySet<string> = new Set([
  MediaType.dockerLayer,
  MediaType.dockerLayerGzip,
  "application/vnd.docker.image.rootfs.diff.tar.zstd",
  "application/vnd.docker.image.rootfs.foreign.diff.tar",
  "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  "application/vnd.erofs.layer.v1",
]);
const CHECKPOINTS: ReadonlySet<string> = new Set([
  "application/vnd.containerd.container.criu.checkpoint.criu.tar",
  "application/vnd.containerd.container.checkpoint.config.v1+proto",
]);

export function isIndex(mediaType: string): boolean {
  return mediaType === MediaType.ociIndex || mediaType === MediaType.dockerIndex;
}

export function isManifest(mediaType: string): boolean {
  return mediaType === MediaType.ociManifest || mediaType === MediaType.dockerManifest;
}

export function isImageConfig(mediaType: string): boolean {
  return mediaType === MediaType.ociConfig || mediaType === MediaType.dockerConfig;
}

/** An image's config or a checkpoint's. */
export function isKnownConfig(mediaType: string): boolean {
  return isImageConfig(mediaType) || CHECKPOINTS.has(mediaType);
}

export function isLayer(mediaType: string): boolean {
  return mediaType.startsWith(OCI_LAYER_PREFIX) || DOCKER_LAYERS.has(mediaType.split("+", 1)[0] ?? "");
}

export function isAttestation(mediaType: string): boolean {
  return mediaType === "application/vnd.in-toto+json";
}

/** Such as Windows' base layers, which only their maker may hand out. */
export function isNonDistributable(mediaType: string): boolean {
  return (
    mediaType.startsWith(`${OCI_LAYER_PREFIX}nondistributable.`) ||
    mediaType.startsWith("application/vnd.docker.image.rootfs.foreign.")
  );
}
