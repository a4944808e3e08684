import type { Any } from "@bufbuild/protobuf/wkt";
import type { Sandbox_Runtime } from "#gen/containerd/types/sandbox_pb.ts";
import type { Labels } from "../../model/labels.ts";
import type { PreparedTask } from "../../model/tasks.ts";
import type { SandboxMetadata } from "../store/metadata.ts";
import type { SandboxState } from "../store/sandbox.ts";

/** What is known of a pause container before it runs. */
export interface RecordedPause {
  readonly labels: Labels;
  readonly spec?: Any | undefined;
}

/** A pause container as its controller knows it. */
export class PodSandbox {
  readonly id: string;
  readonly runtime: Sandbox_Runtime | undefined;
  metadata: SandboxMetadata;
  state: SandboxState = "unknown";
  pid = 0;
  /** Nanoseconds since 1970. */
  createdAt = 0n;
  exitedAt = 0n;
  exitStatus = 0;
  /** Its shim, which runs before there is a container. */
  prepared: PreparedTask | undefined;
  /** There is a container record of it. */
  hasContainer = false;
  /** Somebody waits for the end of its task. */
  watched = false;
  /** Of its container, once there is a record of it. */
  readonly recorded = Promise.withResolvers<RecordedPause>();
  readonly #exited = Promise.withResolvers<void>();

  constructor(metadata: SandboxMetadata, runtime: Sandbox_Runtime | undefined) {
    this.id = metadata.id;
    this.metadata = metadata;
    this.runtime = runtime;
    // Nobody may wait for it.
    this.recorded.promise.catch(() => undefined);
  }

  /** Resolves when it has ended and its task is deleted. */
  get exited(): Promise<void> {
    return this.#exited.promise;
  }

  markExited(exitStatus: number, exitedAt: bigint): void {
    this.state = "not ready";
    this.pid = 0;
    this.exitStatus = exitStatus;
    this.exitedAt = exitedAt;
    this.#exited.resolve();
  }
}
