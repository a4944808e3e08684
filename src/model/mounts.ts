import type { ActivationInfo, ActiveMount, Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Labels } from "./labels.ts";
import type { Scope } from "./scope.ts";

export interface ActivateOptions {
  readonly labels?: Labels | undefined;
  /** All is mounted, and the answer is one bind mount of the result. */
  readonly temporary?: boolean | undefined;
  /** Types that the caller handles itself; `format/*` for a transformation. */
  readonly allowed?: readonly string[] | undefined;
}

/** Mounts that the kernel alone cannot make, by name (containerd `core/mount/manager.go`). */
export interface MountStore {
  /**
   * Makes what has to be there before the caller mounts the answer's `system` mounts itself. A lease or a label `gc.bref.*` keeps it.
   * @throws Unimplemented if the kernel can make all of it, AlreadyExists, InvalidArgument, Unknown with what the system says
   */
  activate(
    scope: Scope,
    name: string,
    mounts: readonly Mount[],
    options?: ActivateOptions,
  ): Promise<ActivationInfo>;
  /** @throws NotFound; Unknown if something is in use: it is forgotten all the same, and a later collection takes it away */
  deactivate(scope: Scope, name: string): Promise<void>;
  /** @throws NotFound */
  info(scope: Scope, name: string): Promise<ActivationInfo>;
  /** Labels alone change; without paths all of them. @throws NotFound, InvalidArgument on another field */
  update(scope: Scope, info: ActivationInfo, fieldPaths?: readonly string[]): Promise<ActivationInfo>;
  /** @throws InvalidArgument on a filter's syntax */
  list(scope: Scope, filters?: readonly string[]): Promise<ActivationInfo[]>;
}

/** Mounts one type. */
export interface MountHandler {
  /** Makes `point`, whose folder exists. @throws ErrnoException */
  mount(mount: Mount, point: string, active: readonly ActiveMount[]): Promise<void>;
  /** Takes it away with what it left beside it; what is gone already is no error. @throws ErrnoException if it is in use */
  unmount(point: string): Promise<void>;
  /** False once it has gone without {@link unmount}, as by a reboot. */
  isMounted(point: string): boolean;
}
