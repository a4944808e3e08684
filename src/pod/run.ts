/** `bunkerd pod run`: pods in the foreground, from their first container to their end. */
import { watch } from "node:fs";
import { messageOf } from "../model/errors.ts";
import type { Accepted } from "./accept.ts";
import type { Pod } from "./api/pod.ts";
import { LogFollower } from "./follow.ts";
import type { LogLine } from "./logs.ts";
import { firstFailure } from "./phase.ts";
import type { PodSession } from "./session.ts";
import { deletionRequest, unitOf } from "./store.ts";
import type { PodState, PodWorker } from "./worker.ts";

export interface RunOutput {
  line(pod: Pod, container: string, line: LogLine): void;
  failure(pod: Pod, message: string): void;
}

export interface Finished {
  readonly state: PodState;
  /** Of the container that failed first before the pod was asked to end; 0 if none did. */
  readonly exitCode: number;
}

/** One pod in the foreground. */
export class ForegroundPod {
  readonly pod: Pod;
  readonly #worker: PodWorker;
  readonly #session: PodSession;
  readonly #accepted: Accepted;
  readonly #logs: LogFollower;
  #state: PodState | undefined;
  /** Fixed when the pod is asked to end: what then ends by our signal has not failed. */
  #failedBefore: number | undefined;
  #asked = false;

  constructor(session: PodSession, accepted: Accepted, output: RunOutput) {
    const unit = unitOf(session.parts.roots, accepted.stored);
    this.pod = unit.pod;
    this.#session = session;
    this.#accepted = accepted;
    this.#logs = new LogFollower(
      (container, line) => output.line(unit.pod, container, line),
      (error) => output.failure(unit.pod, messageOf(error)),
    );
    this.#worker = session.worker(unit, {
      onStarting: (id, name, logPath) => this.#logs.follow(id, name, logPath),
      onState: (state) => {
        this.#state = state;
        this.#logs.update(state.observed);
      },
    });
  }

  /** Ends the pod with its grace. */
  stop(graceSeconds?: number): void {
    if (!this.#asked && this.#state !== undefined)
      this.#failedBefore = firstFailure(this.pod.spec, this.#state.observed);
    this.#asked = true;
    this.#worker.terminate("", graceSeconds);
  }

  async run(): Promise<Finished> {
    const unwatch = this.#watchDeletion();
    try {
      const state = await this.#worker.run(this.#accepted.known);
      this.#logs.update(state.observed);
      await this.#logs.finish();
      const failed = firstFailure(this.pod.spec, state.observed);
      const exitCode = this.#asked
        ? (this.#failedBefore ?? 0)
        : (failed ?? (state.phase === "Failed" ? 1 : 0));
      return { state, exitCode };
    } finally {
      unwatch();
      this.#logs.close();
      this.#session.release(this.#worker.unit);
      this.#accepted.claim.release();
    }
  }

  /** `pod stop` and `pod rm` leave a mark in the pod's folder. */
  #watchDeletion(): () => void {
    const { roots } = this.#session.parts;
    const look = (): void => {
      const request = deletionRequest(roots, this.pod.metadata);
      if (request !== undefined) this.stop(request.graceSeconds);
    };
    const watcher = watch(this.#worker.unit.paths.folder, look);
    look();
    return () => watcher.close();
  }
}
