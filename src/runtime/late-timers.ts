import { basename } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { OptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import type { Logger } from "../lib/log.ts";
import { canRestoreTimers, restoreTimers } from "../linux/timer-slack.ts";
import { messageOf } from "../model/errors.ts";
import { isRuncShim } from "./runtime-path.ts";
import type { Shim } from "./shim.ts";

/** How long nothing has been started in a shim before its timers are as usual again. */
const SETTLED_MS = 2000;
const CONNECT_TIMEOUT_MS = 10_000;

interface Late {
  readonly shim: Shim;
  readonly timer: ReturnType<typeof setTimeout>;
  /** Once it has begun. */
  settled: Promise<void> | undefined;
}

/** Where a container's output goes: URIs, of which `binary:` names a program of the user's. */
interface Outputs {
  readonly stdout: string;
  readonly stderr: string;
}

const NOTHING = { checkpoint: "", stdout: "", stderr: "" };

/**
 * Shims that were started with late timers (`linux/timer-slack.ts`), for their own start and those of their containers: they and runc are woken
 * less often. Nothing of a user's runs so: a container's process gets the usual timers while it waits for its start, and a shim before it
 * starts anything else that is a user's (an exec, a hook, what is restored), two seconds after the last start, and when the daemon ends.
 */
export class LateTimers {
  readonly #logger: Logger;
  /** By address, for a pod's tasks share one. */
  readonly #late = new Map<string, Late>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Of runc it is known which of its processes becomes the container's. */
  allowed(program: string, options: Any | undefined): boolean {
    return isRuncShim(program) && isRunc(options) && canRestoreTimers();
  }

  /** A shim has been started with late timers, or may have been by an earlier daemon. */
  add(shim: Shim): void {
    if (!canRestoreTimers()) return;
    const { address } = shim.bootstrap;
    clearTimeout(this.#late.get(address)?.timer);
    const timer = setTimeout(() => void this.settle(shim), SETTLED_MS);
    timer.unref();
    this.#late.set(address, { shim, timer, settled: undefined });
  }

  /**
   * A container is created in it, or one that has been is started: its timers stay late, unless more is started with it that is a user's.
   * @param spec of a container to be created
   */
  async starting(
    shim: Shim,
    spec?: Any,
    started: { readonly checkpoint: string } & Outputs = NOTHING,
  ): Promise<void> {
    const late = this.#late.get(shim.bootstrap.address);
    if (late === undefined) return;
    const { checkpoint, stdout, stderr } = started;
    const logger = [stdout, stderr].some((uri) => uri.startsWith("binary"));
    if (late.settled !== undefined || checkpoint !== "" || logger || mayHaveHooks(spec))
      await this.settle(shim);
    else this.add(shim);
  }

  /** The shim's timers are as usual from then on. What fails is logged: the worst is a timer that is a millisecond late. */
  settle(shim: Shim, timeoutMs = CONNECT_TIMEOUT_MS): Promise<void> {
    const { address } = shim.bootstrap;
    const late = this.#late.get(address);
    if (late === undefined) return Promise.resolve();
    clearTimeout(late.timer);
    late.settled ??= this.#settle(shim, timeoutMs).finally(() => {
      if (this.#late.get(address) === late) this.#late.delete(address);
    });
    return late.settled;
  }

  /** A process that a shim has made for a container, and that runs nothing of the user's yet. */
  restore(shim: Shim, pid: number): void {
    if (!canRestoreTimers()) return;
    try {
      restoreTimers(pid);
    } catch (error) {
      this.#complain(shim, error);
    }
  }

  /** All of them, for the daemon ends. */
  async settleAll(timeoutMs: number): Promise<void> {
    await Promise.all([...this.#late.values()].map(({ shim }) => this.settle(shim, timeoutMs)));
  }

  async #settle(shim: Shim, timeoutMs: number): Promise<void> {
    const { namespace, id } = shim.bundle;
    try {
      const { shimPid } = await shim.call((task, call) => task.connect({ id }, call), { timeoutMs });
      this.restore(shim, shimPid);
    } catch (error) {
      // It has ended, or hangs.
      this.#logger.debug("a shim's timers stay late", { namespace, id, error: messageOf(error) });
    }
  }

  #complain({ bundle: { namespace, id } }: Shim, error: unknown): void {
    this.#logger.warn("timers stay late", { namespace, id, error: messageOf(error) });
  }
}

/** They may be anything that the operator has. A word of that name elsewhere in the spec does no harm. */
function mayHaveHooks(spec: Any | undefined): boolean {
  return (
    spec !== undefined &&
    Buffer.from(spec.value.buffer, spec.value.byteOffset, spec.value.length).includes('"hooks"')
  );
}

function isRunc(options: Any | undefined): boolean {
  if (options === undefined || options.value.length === 0) return true;
  if (options.typeUrl.replace(/^.*\//, "") !== OptionsSchema.typeName) return false;
  try {
    const { binaryName } = fromBinary(OptionsSchema, options.value);
    return binaryName === "" || basename(binaryName) === "runc";
  } catch {
    // The shim is the one to say so.
    return false;
  }
}
