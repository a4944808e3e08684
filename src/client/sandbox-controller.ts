import { Controller } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { fail, isError } from "../model/errors.ts";
import type { SandboxController } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import type { Exit } from "../model/tasks.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** From one try to wait to the next while the process behind the socket is away, doubled each time. */
const FIRST_RETRY_MS = 128;
const LAST_RETRY_MS = 4096;

/** A sandbox controller behind a gRPC socket, which calls it by `name` (containerd `core/sandbox/proxy`). */
export class RemoteSandboxController implements SandboxController {
  readonly #remote: Remote;
  readonly #sandboxer: string;
  readonly #rpc;
  readonly #stopping = new AbortController();

  constructor(remote: Remote, name: string) {
    this.#remote = remote;
    this.#sandboxer = name;
    this.#rpc = remote.service(Controller);
  }

  /** Ends every wait: its callers ask the next daemon. */
  stopWaiting(): void {
    this.#stopping.abort(fail("Unavailable", "daemon is stopping"));
  }

  async create(scope: Scope, given: Parameters<SandboxController["create"]>[1]): Promise<void> {
    const { sandbox, rootfs, options, netnsPath, annotations } = given;
    const request = {
      ...{ ...this.#name(sandbox.sandboxId), sandbox, netnsPath },
      ...{ rootfs: [...rootfs], annotations: { ...annotations } },
      ...(options && { options }),
    };
    await this.#remote.answer(this.#rpc.create(request, callOptions(scope)));
  }

  start(scope: Scope, id: string): ReturnType<SandboxController["start"]> {
    return this.#remote.answer(this.#rpc.start(this.#name(id), callOptions(scope)));
  }

  async platform(scope: Scope, id: string): ReturnType<SandboxController["platform"]> {
    const { platform } = await this.#remote.answer(this.#rpc.platform(this.#name(id), callOptions(scope)));
    return required(platform, "a platform");
  }

  async stop(scope: Scope, id: string, timeoutSecs: number): Promise<void> {
    await this.#remote.answer(this.#rpc.stop({ ...this.#name(id), timeoutSecs }, callOptions(scope)));
  }

  /** The process behind the socket may go and come back meanwhile. */
  async wait(scope: Scope, id: string): Promise<Exit> {
    const stopping = this.#stopping.signal;
    const signal = scope.signal === undefined ? stopping : AbortSignal.any([scope.signal, stopping]);
    for (let pauseMs = FIRST_RETRY_MS; ; pauseMs = Math.min(pauseMs * 2, LAST_RETRY_MS)) {
      try {
        const { exitStatus, exitedAt } = await this.#remote.answer(
          this.#rpc.wait(this.#name(id), callOptions({ ...scope, signal })),
        );
        return { pid: 0, exitStatus, exitedAt };
      } catch (error) {
        stopping.throwIfAborted();
        if (signal.aborted || !isError(error, "Unavailable")) throw error;
      }
      await pause(pauseMs, signal);
    }
  }

  status(scope: Scope, id: string, verbose: boolean): ReturnType<SandboxController["status"]> {
    return this.#remote.answer(this.#rpc.status({ ...this.#name(id), verbose }, callOptions(scope)));
  }

  async shutdown(scope: Scope, id: string): Promise<void> {
    await this.#remote.answer(this.#rpc.shutdown(this.#name(id), callOptions(scope)));
  }

  async metrics(scope: Scope, id: string): ReturnType<SandboxController["metrics"]> {
    const { metrics } = await this.#remote.answer(this.#rpc.metrics(this.#name(id), callOptions(scope)));
    return required(metrics, "metrics");
  }

  async update(
    scope: Scope,
    id: string,
    sandbox: Parameters<SandboxController["update"]>[2],
    fieldPaths: readonly string[],
  ): Promise<void> {
    const request = { ...this.#name(id), sandbox, fields: [...fieldPaths] };
    await this.#remote.answer(this.#rpc.update(request, callOptions(scope)));
  }

  #name(sandboxId: string) {
    return { sandboxId, sandboxer: this.#sandboxer };
  }
}

/** At most so long: less if the signal is aborted. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end, { once: true });
  });
}
