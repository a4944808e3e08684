import type { Namespace } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { fail } from "./errors.ts";
import { validateIdentifier } from "./ids.ts";

/** The namespace that clients use when nobody says otherwise. */
export const DEFAULT_NAMESPACE = "default";

/** The namespace that was found valid last: each call asks several times. */
let lastValid = DEFAULT_NAMESPACE;

/**
 * A valid namespace, or FailedPrecondition if there is none and InvalidArgument if it is no identifier.
 * Wording: containerd `pkg/namespaces` NamespaceRequired.
 */
export function requireNamespace(namespace: string | undefined): string {
  if (namespace === undefined || namespace === "") throw fail("FailedPrecondition", "namespace is required");
  if (namespace === lastValid) return namespace;
  validateIdentifier(namespace, "namespace validation: ");
  lastValid = namespace;
  return namespace;
}

/**
 * The namespaces of a daemon. Not scoped: the namespace is the object. Source of the rules: containerd
 * `core/metadata/namespaces.go` and `plugins/services/namespaces/local.go`, whose events the store publishes.
 */
export interface NamespaceStore {
  /** Never fails for a missing namespace: its labels are empty, as in containerd. */
  get(name: string): Promise<Namespace>;
  /** Ordered by name. */
  list(): Promise<Namespace[]>;
  /** @throws AlreadyExists, InvalidArgument */
  create(namespace: Namespace): Promise<Namespace>;
  /**
   * Sets the labels named by `fieldPaths` (`labels.<key>`), or replaces them all if there is none. An empty value removes a
   * label; a missing namespace comes into being with its first label. Returns what is stored now (containerd's RPC answers
   * an empty message). @throws InvalidArgument on any other field
   */
  update(namespace: Namespace, fieldPaths?: readonly string[]): Promise<Namespace>;
  /** @throws NotFound, FailedPrecondition while it holds images, blobs, containers or snapshots */
  delete(name: string): Promise<void>;
}
