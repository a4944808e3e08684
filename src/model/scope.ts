/**
 * What every call on a store carries: containerd's context values (`pkg/namespaces`, `core/leases/context.go`). That of a request makes
 * its signal when it is asked for: a copy by `...scope` has none, and names the one it needs.
 */
export interface Scope {
  /** A valid namespace (see `namespaces.ts`). */
  readonly namespace: string;
  /** The lease that new resources are added to, from header `containerd-lease`. */
  readonly lease?: string | undefined;
  /** Aborted when the caller has gone or its deadline has passed. */
  readonly signal?: AbortSignal | undefined;
}
