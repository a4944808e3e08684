import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Image } from "#gen/containerd/services/images/v1/images_pb.ts";
import type { Scope } from "./scope.ts";

export interface ImageWriteOptions {
  /** What the times are set to, for images that are built alike every time; absent: now. */
  readonly sourceDateEpoch?: Timestamp | undefined;
}

export interface ImageDeleteOptions {
  /** Deletes only if the image still has that target. */
  readonly targetDigest?: string | undefined;
  /** Asks to return only after what only the image kept is collected. */
  readonly sync?: boolean | undefined;
}

/**
 * Image records of every namespace: names for descriptors. Source of the rules: containerd `core/images/image.go`,
 * `core/metadata/images.go`. A name may be any text.
 */
export interface ImageStore {
  /** @throws NotFound */
  get(scope: Scope, name: string): Promise<Image>;
  /**
   * What matches any of the filters (`name`, `target.digest`, `target.mediatype`, `labels.<key>`, `annotations.<key>`), ordered by
   * name. @throws InvalidArgument
   */
  list(scope: Scope, filters?: readonly string[]): Promise<Image[]>;
  /**
   * Sets both times; returns what was stored. An image that expires is added to the scope's lease.
   * @throws AlreadyExists, InvalidArgument, NotFound without the lease
   */
  create(scope: Scope, image: Image, options?: ImageWriteOptions): Promise<Image>;
  /**
   * Changes the fields named by `fieldPaths` (`labels`, `labels.<key>`, `target`, `annotations`, `annotations.<key>`); all if there is
   * none. @throws NotFound, InvalidArgument on another field
   */
  update(
    scope: Scope,
    image: Image,
    fieldPaths?: readonly string[],
    options?: ImageWriteOptions,
  ): Promise<Image>;
  /** @throws NotFound */
  delete(scope: Scope, name: string, options?: ImageDeleteOptions): Promise<void>;
}
