import type { Any, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Descriptor } from "#gen/containerd/types/descriptor_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Labels } from "./labels.ts";
import type { Scope } from "./scope.ts";

/** Of an uncompressed layer (OCI image-spec `media-types.md`). */
export const LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar";
/** On a compressed layer's blob: the digest of what it holds (containerd `pkg/labels`). */
export const LABEL_UNCOMPRESSED = "containerd.io/uncompressed";

export interface ApplyOptions {
  /** Brings the file system to the disk before the answer. */
  readonly syncFs?: boolean | undefined;
  /** The layers below are not there yet. @throws Aborted if the layer cannot be told without them */
  readonly alone?: boolean | undefined;
  /** For stream processors, by their ids. */
  readonly payloads?: Readonly<Record<string, Any>> | undefined;
}

/** Puts layers onto mounts. Source of the rules: containerd `core/diff/diff.go`. */
export interface Applier {
  /**
   * Applies the layer that `layer` describes, compressed or not, and answers what was applied: digest and size uncompressed.
   * @throws NotFound without the blob, Unknown on a media type or an archive that cannot be read, ResourceExhausted on a full disk
   */
  apply(
    scope: Scope,
    layer: Descriptor,
    mounts: readonly Mount[],
    options?: ApplyOptions,
  ): Promise<Descriptor>;
}

export interface CompareOptions {
  /** Of the layer to make; gzip if empty. */
  readonly mediaType?: string | undefined;
  /** Of the ingest; one of its own if empty. */
  readonly ref?: string | undefined;
  /** Of the blob. */
  readonly labels?: Labels | undefined;
  /** Upper bound of modification times. */
  readonly sourceDateEpoch?: Timestamp | undefined;
}

/** Makes layers of what differs between mounts. */
export interface Comparer {
  /**
   * Stores a layer that turns what `lower` shows into what `upper` shows.
   * @throws Unimplemented on another media type, what {@link ContentStore.writer} throws
   */
  compare(
    scope: Scope,
    lower: readonly Mount[],
    upper: readonly Mount[],
    options?: CompareOptions,
  ): Promise<Descriptor>;
}

export interface Differ extends Applier, Comparer {}
