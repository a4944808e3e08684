import type { Sandbox } from "#gen/containerd/types/sandbox_pb.ts";
import type { Scope } from "./scope.ts";

/** Sandbox records of every namespace. Source of the rules: containerd `core/sandbox/store.go`, `core/metadata/sandbox.go`. */
export interface SandboxStore {
  /** Sets both times; returns what was stored. @throws AlreadyExists, InvalidArgument */
  create(scope: Scope, sandbox: Sandbox): Promise<Sandbox>;
  /**
   * Changes the fields named by `fieldPaths` (`labels`, `labels.<key>`, `extensions`, `extensions.<key>`, `runtime`, `spec`);
   * all of them if there is none. @throws NotFound, InvalidArgument on another field or a new runtime name without a mask
   */
  update(scope: Scope, sandbox: Sandbox, fieldPaths?: readonly string[]): Promise<Sandbox>;
  /** @throws NotFound */
  get(scope: Scope, id: string): Promise<Sandbox>;
  /** Sandboxes that match any of the filters (`id`, `labels.<key>`), ordered by id. @throws InvalidArgument */
  list(scope: Scope, filters?: readonly string[]): Promise<Sandbox[]>;
  /** @throws NotFound */
  delete(scope: Scope, id: string): Promise<void>;
}
