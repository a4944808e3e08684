import type { ContainerResources } from "#gen/runtime/v1/api_pb.ts";
import { Semaphore } from "../../lib/semaphore.ts";
import { KeptBytes } from "./kept-bytes.ts";
import type { SandboxMetadata } from "./metadata.ts";

/** `unknown`: neither its start nor its cleanup came to an end. CRI is told that it is not ready. */
export type SandboxState = "ready" | "not ready" | "unknown";

export interface SandboxStatus {
  readonly state: SandboxState;
  /** 0 while it does not run. */
  readonly pid: number;
  /** Nanoseconds since 1970. */
  readonly createdAt: bigint;
  readonly exitedAt: bigint;
  readonly exitStatus: number;
  /** As UpdatePodSandboxResources last said. */
  readonly overhead?: ContainerResources | undefined;
  readonly resources?: ContainerResources | undefined;
}

/** Where the sandbox itself serves the task API; of its shim, if the address is empty. */
export interface SandboxEndpoint {
  readonly address: string;
  readonly version: number;
}

/**
 * Runc's shim, one for all containers of a pod, falls out of step when some thirty of its children end at once (the programs that it runs are
 * such children, too): each further end then takes it seconds. So many are ended, and cleaned up after, at the same time.
 */
const KILLS_AT_ONCE = 8;
const CLEANUPS_AT_ONCE = 4;

/** A pod as CRI knows it. */
export class Sandbox {
  readonly id: string;
  /** Name of the controller that runs it. */
  readonly sandboxer: string;
  metadata: SandboxMetadata;
  endpoint: SandboxEndpoint = { address: "", version: 0 };
  status: SandboxStatus;
  readonly kills = new Semaphore(KILLS_AT_ONCE);
  readonly cleanups = new Semaphore(CLEANUPS_AT_ONCE);
  /** Plugins that take the same interface away at once fail. */
  readonly detachments = new Semaphore(1);
  /** As it stands in lists. */
  readonly listed = new KeptBytes();

  constructor(metadata: SandboxMetadata, sandboxer: string, status: SandboxStatus) {
    this.id = metadata.id;
    this.metadata = metadata;
    this.sandboxer = sandboxer;
    this.status = status;
  }

  update(change: Partial<SandboxStatus>): void {
    this.status = { ...this.status, ...change };
  }
}
