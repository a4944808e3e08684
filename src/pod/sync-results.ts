/** What a round of a pod's worker came to, container by container and step by step. */
import type { PodErrorReason } from "./errors.ts";
import type { StartStep } from "./start-container.ts";

export interface SyncResult {
  readonly action: "KillContainer" | "KillPodSandbox" | "CreatePodSandbox" | "StartContainer" | "ConfigPod";
  /** A container's name, or the pod's. */
  readonly target: string;
  /** Of a container's start: those that were begun. */
  readonly steps: readonly StartStep[];
  /** Undefined: it went well. */
  readonly failure?: { readonly reason: PodErrorReason; readonly message: string };
}

/** Of a round that is under way. */
export class Results {
  readonly list: SyncResult[] = [];
  retryAtMs: number | undefined;

  done(action: SyncResult["action"], target: string, steps: readonly StartStep[] = []): void {
    this.list.push({ action, target, steps });
  }

  failed(
    action: SyncResult["action"],
    target: string,
    reason: PodErrorReason,
    message: string,
    steps: readonly StartStep[] = [],
  ): void {
    this.list.push({ action, target, steps, failure: { reason, message } });
  }

  retry(atMs: number): void {
    this.retryAtMs = Math.min(this.retryAtMs ?? atMs, atMs);
  }
}
