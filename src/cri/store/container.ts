import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import type { ContainerIo } from "../io/container-io.ts";
import type { Cgroup } from "../stats/cgroup.ts";
import { KeptBytes } from "./kept-bytes.ts";
import type { ContainerMetadata } from "./metadata.ts";
import type { StatusFile } from "./status-file.ts";

/** A container as CRI knows it. */
export class Container {
  readonly id: string;
  readonly metadata: ContainerMetadata;
  readonly status: StatusFile;
  /** Undefined of a container whose state is not known. */
  io: ContainerIo | undefined;
  /** The stop signal has been sent: a second stop only waits. */
  stopSignaled = false;
  /** As it stands in lists, and what stands of it in stats. */
  readonly listed = new KeptBytes();
  readonly attributes = new KeptBytes();
  readonly layer = new KeptBytes();
  /** Of its process, once somebody asked for stats. */
  cgroup: { readonly pid: number; readonly cgroup: Cgroup } | undefined;
  readonly #stopped = Promise.withResolvers<void>();
  #changed: Promise<unknown> = Promise.resolve();

  constructor(metadata: ContainerMetadata, status: StatusFile, io: ContainerIo | undefined) {
    this.id = metadata.id;
    this.metadata = metadata;
    this.status = status;
    this.io = io;
    if (status.state === ContainerState.CONTAINER_EXITED) this.#stopped.resolve();
  }

  /** Resolves when its end has been seen and written down. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  markStopped(): void {
    this.#stopped.resolve();
  }

  /** Runs changes of its limits one after the other. */
  exclusive<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#changed.then(change);
    // Who changes is told; the next change is made all the same.
    this.#changed = result.catch(() => undefined);
    return result;
  }
}
