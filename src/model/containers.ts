import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { ContainerRecord } from "./container-record.ts";
import type { Scope } from "./scope.ts";

/**
 * Container records of every namespace. Implemented by `metadata/` (the database) and `client/` (any containerd socket);
 * both pass the suite in `test/support/container-store-suite.ts`. Source of the rules: containerd `core/containers/containers.go`.
 */
export interface ContainerStore {
  /** @throws NotFound */
  get(scope: Scope, id: string): Promise<Container>;
  /** Containers that match any of the filters (all, if there is none), ordered by id. @throws InvalidArgument on a filter's syntax. */
  list(scope: Scope, filters?: readonly string[]): Promise<Container[]>;
  /** Sets both times; returns what was stored. @throws AlreadyExists, InvalidArgument */
  create(scope: Scope, container: Container): Promise<Container>;
  /**
   * Changes the fields named by `fieldPaths` (`labels`, `labels.<key>`, `spec`, `extensions`, `image`, `snapshotkey`, ...);
   * all mutable ones if there is none. @throws NotFound, InvalidArgument on an immutable field
   */
  update(scope: Scope, container: Container, fieldPaths?: readonly string[]): Promise<Container>;
  /** @throws NotFound */
  delete(scope: Scope, id: string): Promise<void>;
}

/** The same records, found without a look at all that they hold. */
export interface LabelledContainers {
  /** Containers with that label, ordered by id. Other calls are served while many are looked through. */
  withLabel(scope: Scope, label: string): Promise<Container[]>;
  /** The same number as before: no container of any namespace has changed meanwhile. */
  revision(): number;
}

/**
 * The same records as protobuf bytes that are ready for the wire, for answers that are copied, not built. Reads answer what
 * {@link ContainerStore} would, at the moment of the call. The bytes are the caller's to read, not to change.
 */
export interface EncodedContainers {
  /** Bytes of one GetContainerResponse. @throws NotFound */
  getEncoded(scope: Scope, id: string): Uint8Array;
  /**
   * Each container as the bytes of one ListContainerMessage: all of them in a row are one ListContainersResponse.
   * @throws InvalidArgument on a filter's syntax
   */
  listEncoded(scope: Scope, filters?: readonly string[]): Uint8Array[];
  /** Bytes of one CreateContainerResponse. Fails as {@link ContainerStore.create}, at once or later. */
  createEncoded(scope: Scope, record: ContainerRecord): Promise<Uint8Array>;
  /** Bytes of one UpdateContainerResponse. Fails as {@link ContainerStore.update}, at once or later. */
  updateEncoded(scope: Scope, record: ContainerRecord, fieldPaths?: readonly string[]): Promise<Uint8Array>;
}
