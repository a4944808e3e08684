import type { Any } from "@bufbuild/protobuf/wkt";
import type {
  ControllerStartResponse,
  ControllerStatusResponse,
} from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import type { Metric } from "#gen/containerd/types/metrics_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Sandbox } from "#gen/containerd/types/sandbox_pb.ts";
import type { Labels } from "./labels.ts";
import type { Platform } from "./platforms.ts";
import type { Scope } from "./scope.ts";
import type { Exit } from "./tasks.ts";

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

/** What a controller needs to know of a sandbox besides its record. */
export interface NewSandbox {
  readonly sandbox: Sandbox;
  readonly rootfs: readonly Mount[];
  /** For the runtime: CRI's is the pod's configuration. */
  readonly options: Any | undefined;
  /** Empty: the host's network. */
  readonly netnsPath: string;
  readonly annotations: Labels;
}

/**
 * Runs the sandboxes of one kind. `podsandbox`: a pause container; `shim`: whatever the runtime's shim makes of it. Source of the rules:
 * containerd `core/sandbox/controller.go`. Every call but `create` throws NotFound for a sandbox that it does not have, if not said otherwise.
 */
export interface SandboxController {
  /** Gets to know the sandbox; nothing runs. @throws AlreadyExists */
  create(scope: Scope, sandbox: NewSandbox): Promise<void>;
  /** Runs it. If that fails, it has undone what it could; {@link shutdown} removes the rest. */
  start(scope: Scope, id: string): Promise<ControllerStartResponse>;
  platform(scope: Scope, id: string): Promise<Platform>;
  /** Ends what runs; of one that has ended nothing. @param timeoutSeconds until it is killed */
  stop(scope: Scope, id: string, timeoutSeconds: number): Promise<void>;
  /** Resolves when the sandbox has ended. */
  wait(scope: Scope, id: string): Promise<Exit>;
  status(scope: Scope, id: string, verbose: boolean): Promise<ControllerStatusResponse>;
  /** Removes what is left of it; of one that is not there nothing. */
  shutdown(scope: Scope, id: string): Promise<void>;
  metrics(scope: Scope, id: string): Promise<Metric>;
  update(scope: Scope, id: string, sandbox: Sandbox, fieldPaths: readonly string[]): Promise<void>;
}
