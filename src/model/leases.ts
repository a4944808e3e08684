import type { Lease, Resource } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import type { Labels } from "./labels.ts";
import type { Scope } from "./scope.ts";

/** What a new lease is made of. Without `id` the store makes a random one, as containerd's. */
export interface NewLease {
  readonly id?: string | undefined;
  /** `containerd.io/gc.expire` holds the RFC 3339 time at which it ends. */
  readonly labels?: Labels | undefined;
}

/**
 * Leases: named sets of resources that garbage collection keeps. Source of the rules: containerd `core/leases`,
 * `core/metadata/leases.go`. An id may be any text of at most 32768 bytes.
 */
export interface LeaseStore {
  /** @throws AlreadyExists, InvalidArgument */
  create(scope: Scope, lease: NewLease): Promise<Lease>;
  /**
   * Removes the lease; what only it kept is garbage from then on.
   * @param options.sync asks to return only after that garbage is collected
   * @throws NotFound
   */
  delete(scope: Scope, id: string, options?: { readonly sync?: boolean }): Promise<void>;
  /** Leases that match any of the filters (`id`, `labels.<key>`), ordered by id. @throws InvalidArgument */
  list(scope: Scope, filters?: readonly string[]): Promise<Lease[]>;
  /**
   * Adds a resource by type: `content` (id is a digest), `ingests`, `images`, `snapshots/<snapshotter>`. Adding twice is no error.
   * @throws NotFound without the lease, InvalidArgument on a malformed type or digest, Unimplemented on another type
   */
  addResource(scope: Scope, id: string, resource: Resource): Promise<void>;
  /** Removing what is not there is no error. @throws as `addResource` */
  deleteResource(scope: Scope, id: string, resource: Resource): Promise<void>;
  /** By type (content, images, ingests, snapshots), then id. @throws NotFound */
  listResources(scope: Scope, id: string): Promise<Resource[]>;
}
