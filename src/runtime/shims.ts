import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { TaskDeleteSchema, TaskExitSchema } from "#gen/containerd/events/task_pb.ts";
import type { Clock } from "../lib/clock.ts";
import { ifThere } from "../lib/if-there.ts";
import type { Logger } from "../lib/log.ts";
import { startTimer } from "../lib/timer.ts";
import type { ContainerStore } from "../model/containers.ts";
import { BunkerdError, fail, isError, messageOf, within } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import type { Exit } from "../model/tasks.ts";
import { type Bootstrap, parseBootstrap, readBootstrap, writeBootstrap } from "./bootstrap.ts";
import { type Bundle, type BundleFolders, deleteBundle } from "./bundle.ts";
import { LateTimers } from "./late-timers.ts";
import { BINARY_FILE, Leftovers, programOf } from "./leftovers.ts";
import { isRuncShim, resolveRuntime } from "./runtime-path.ts";
import { isLost, Shim } from "./shim.ts";
import { type LegacyPrograms, type ShimSettings, startShim } from "./shim-command.ts";
import { openShimLog, type ShimLog } from "./shim-log.ts";

/** Milliseconds; `[timeouts]` of config.toml, `io.containerd.timeout.*`. */
export interface RuntimeTimeouts {
  /** Until a list gives up on a task. */
  readonly taskStateMs: number;
  /** Until a shim of an earlier daemon is taken as hung. */
  readonly shimLoadMs: number;
  /** Each of the steps that clean up after a task. */
  readonly shimCleanupMs: number;
  readonly shimShutdownMs: number;
}

export interface ShimsOptions {
  readonly folders: BundleFolders;
  readonly settings: ShimSettings;
  readonly timeouts: RuntimeTimeouts;
}

export interface ShimsDependencies {
  readonly containers: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly publisher: EventPublisher;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface StartOptions {
  /** Name or path. */
  readonly runtime: string;
  readonly options: Any | undefined;
  /** The sandbox that the container belongs to; empty for none. */
  readonly sandboxId: string;
  /** Of a sandbox's shim, `<protocol>+<address>`; empty to look it up. */
  readonly address: string;
  readonly version: number;
}

/** How long a shim is waited for to send an event, which takes it a millisecond; one that lost its connection tries again a second later. */
const EVENT_TIMEOUT_MS = 500;
/** How long the daemon's end waits for a shim to say which process it is. */
const CLOSE_TIMEOUT_MS = 1000;
/** Names the sandbox whose shim runs the task. */
const SANDBOX_FILE = "sandbox";
/** Shims from this version on run what is created in their sandbox without being started for it. */
const SANDBOX_VERSION = 3;
/** Those whose shims this daemon has started. */
const OWN_SANDBOXERS: ReadonlySet<string> = new Set(["", "podsandbox", "shim"]);

/** The shims of all namespaces: containerd's `core/runtime/v2/shim_manager.go`. */
export class Shims {
  readonly folders: BundleFolders;
  readonly timeouts: RuntimeTimeouts;
  readonly late: LateTimers;
  readonly #settings: ShimSettings;
  readonly #dependencies: ShimsDependencies;
  readonly #legacy: LegacyPrograms = new Set();
  readonly #leftovers: Leftovers;
  readonly #shims = new Map<string, Map<string, Shim>>();

  constructor({ folders, settings, timeouts }: ShimsOptions, dependencies: ShimsDependencies) {
    this.folders = folders;
    this.timeouts = timeouts;
    this.#settings = settings;
    this.#dependencies = dependencies;
    const { containers, clock, logger } = dependencies;
    this.late = new LateTimers(logger);
    const timeoutMs = timeouts.shimCleanupMs;
    this.#leftovers = new Leftovers({ settings, timeoutMs, containers, clock, logger });
  }

  get(namespace: string, id: string): Shim | undefined {
    return this.#shims.get(namespace)?.get(id);
  }

  /** Those with shims. */
  namespaces(): string[] {
    return [...this.#shims.keys()].sort();
  }

  /** By id. */
  list(namespace: string): Shim[] {
    const shims = [...(this.#shims.get(namespace)?.values() ?? [])];
    return shims.sort((a, b) => (a.bundle.id < b.bundle.id ? -1 : 1));
  }

  /** Starts the shim of a new bundle, or joins the one of its sandbox. @throws Unknown, NotFound, Canceled */
  async start(scope: Scope, bundle: Bundle, options: StartOptions): Promise<Shim> {
    const sandbox = await this.#sandboxBootstrap(scope, options);
    if (sandbox !== undefined && sandbox.version >= SANDBOX_VERSION) {
      writeFileSync(join(bundle.path, SANDBOX_FILE), options.sandboxId, { mode: 0o600 });
      writeBootstrap(bundle.path, sandbox);
      return this.#register(bundle, sandbox);
    }
    const program = this.#resolve(options.runtime);
    // The log is opened first: a shim waits at its start for a reader.
    const log = openShimLog(bundle.path, this.#loggerOf(bundle));
    const lateTimers = this.late.allowed(program, options.options);
    try {
      const answer = await startShim(
        { program, bundle, settings: this.#settings, lateTimers },
        options.options,
        this.#legacy,
        scope.signal,
      );
      writeFileSync(join(bundle.path, BINARY_FILE), program, { mode: 0o600 });
      const bootstrap = parseBootstrap(answer);
      // Before it is known to anybody: without the file, as on a full disk, the next daemon would not find it.
      writeBootstrap(bundle.path, bootstrap);
      const shim = this.#register(bundle, bootstrap, log);
      if (lateTimers) this.late.add(shim);
      return shim;
    } catch (error) {
      void log.close();
      await this.#leftovers.killShim(bundle);
      throw within("start failed", error);
    }
  }

  /** Reaches for the shim of a bundle that an earlier daemon left. @throws NotFound if nothing tells where it is */
  async adopt(bundle: Bundle): Promise<Shim> {
    const shim = this.#register(bundle, await readBootstrap(bundle.path));
    shim.adopted = true;
    this.late.add(shim);
    return shim;
  }

  /** A sandbox ends its shim by itself: it is no death. If that fails, the shim stays. @throws what `end` throws */
  async dismiss(shim: Shim, end: () => Promise<void>): Promise<void> {
    const { namespace, id } = shim.bundle;
    this.#forget(shim);
    try {
      await end();
    } catch (error) {
      this.#shims.get(namespace)?.set(id, shim);
      throw error;
    }
    await this.retire(shim);
  }

  /**
   * The task has been deleted: ends its shim, and removes the bundle. What fails is logged, for the task is gone.
   * @param told resolves when the shim has sent its events: asked to end before, it drops those that it has not
   */
  async retire(shim: Shim, told?: Promise<unknown>): Promise<void> {
    const { bundle } = shim;
    this.#forget(shim);
    const logger = this.#loggerOf(bundle);
    if (told !== undefined && !this.#isShared(shim)) await waitAtMost(told, EVENT_TIMEOUT_MS);
    await this.#end(shim, logger);
    const program = programOf(bundle);
    // runc's shim has done all of it already, and asking once more costs two processes.
    if (program !== undefined && !isRuncShim(program)) await this.#leftovers.deleteByProgram(bundle, program);
    await deleteBundle(bundle).catch((error: unknown) =>
      logger.error("failed to delete bundle", { error: messageOf(error) }),
    );
  }

  /** A task that was not created, or that nobody knows: kills what there is of it, then as {@link retire}. */
  async discard(shim: Shim): Promise<void> {
    const { bundle } = shim;
    this.#forget(shim);
    const logger = this.#loggerOf(bundle);
    const timeoutMs = this.timeouts.shimCleanupMs;
    try {
      await shim.call((task, call) => task.delete({ id: bundle.id }, call), { timeoutMs });
    } catch (error) {
      if (!isError(error, "NotFound"))
        logger.debug("delete of a discarded task", { error: messageOf(error) });
    }
    const isAlone = !this.#isShared(shim) && !(await this.#isForeign(shim));
    await this.#end(shim, logger);
    // A create that was given up may come to its end between the two calls: the shim then stays for a container that nobody knows. Hooks that
    // the create was at outlive their runc.
    if (isAlone) await this.#leftovers.killShim(bundle);
    await this.clear(bundle);
  }

  /** Ends a shim that has no task, once, unless it is a sandbox's. */
  async reap(shim: Shim): Promise<void> {
    const { namespace, id } = shim.bundle;
    const { sandboxes } = this.#dependencies;
    const isSandbox = await sandboxes.get({ namespace }, id).then(
      () => true,
      (error: unknown) => {
        if (isError(error, "NotFound")) return false;
        throw error;
      },
    );
    if (!isSandbox && this.get(namespace, id) === shim) await this.discard(shim);
  }

  /** Removes what is left of a task without a shim. Answers what the container came to, as far as the shim's program can tell. */
  clear(bundle: Bundle): Promise<Exit> {
    return this.#leftovers.remove(bundle);
  }

  /** Lets go of all shims; they live on. */
  async close(): Promise<void> {
    await this.late.settleAll(CLOSE_TIMEOUT_MS);
    for (const shims of this.#shims.values()) for (const shim of shims.values()) shim.close();
    this.#shims.clear();
  }

  #loggerOf({ namespace, id }: Bundle): Logger {
    return this.#dependencies.logger.with({ namespace, id });
  }

  #resolve(runtime: string): string {
    try {
      return resolveRuntime(runtime);
    } catch (error) {
      throw within("failed to resolve runtime path", error);
    }
  }

  #register(bundle: Bundle, bootstrap: Bootstrap, log?: ShimLog): Shim {
    const shim = new Shim(bundle, bootstrap, log ?? openShimLog(bundle.path, this.#loggerOf(bundle)));
    const shims = this.#shims.get(bundle.namespace) ?? new Map<string, Shim>();
    this.#shims.set(bundle.namespace, shims.set(bundle.id, shim));
    void shim.closed.then(() => {
      if (!shim.ended) void this.#died(shim);
    });
    return shim;
  }

  #forget({ bundle }: Shim): boolean {
    return this.#shims.get(bundle.namespace)?.delete(bundle.id) ?? false;
  }

  /** Lets go of the shim of a task that is gone: one of another process's sandbox is that one's to end. */
  async #end(shim: Shim, logger: Logger): Promise<void> {
    if (await this.#isForeign(shim)) shim.close();
    else await this.#shutdown(shim, this.#isShared(shim), logger);
  }

  async #isForeign({ bundle: { namespace, path } }: Shim): Promise<boolean> {
    const sandboxId = ifThere(() => readFileSync(join(path, SANDBOX_FILE), "utf8"));
    if (sandboxId === undefined || this.get(namespace, sandboxId) !== undefined) return false;
    try {
      const { sandboxer } = await this.#dependencies.sandboxes.get({ namespace }, sandboxId);
      return !OWN_SANDBOXERS.has(sandboxer);
    } catch (error) {
      if (!isError(error, "NotFound")) throw error;
      return false;
    }
  }

  /** True if its process has other tasks: those of a pod. */
  #isShared(shim: Shim): boolean {
    const { bundle, bootstrap } = shim;
    return this.list(bundle.namespace).some(
      (other) => other !== shim && other.bootstrap.address === bootstrap.address,
    );
  }

  /** The shim ended by itself: its container is killed, and the world is told (`cleanupAfterDeadShim`). */
  async #died(shim: Shim): Promise<void> {
    const { bundle } = shim;
    const { namespace, id } = bundle;
    const registered = this.get(namespace, id) === shim;
    // Whoever deletes the task or gave up on it cleans up as well.
    if (!registered) return;
    const logger = this.#loggerOf(bundle);
    logger.info("shim disconnected, cleaning up");
    if (!this.#isShared(shim)) await this.#leftovers.killShim(bundle);
    const exit = await this.clear(bundle);
    this.#forget(shim);
    shim.bury(exit);
    const { pid, exitStatus, exitedAt } = exit;
    const event = { containerId: id, pid, exitStatus, ...(exitedAt === undefined ? {} : { exitedAt }) };
    const { publisher } = this.#dependencies;
    publisher.publish(namespace, "/tasks/exit", TaskExitSchema, create(TaskExitSchema, { ...event, id }));
    publisher.publish(namespace, "/tasks/delete", TaskDeleteSchema, create(TaskDeleteSchema, event));
  }

  /**
   * Asks the shim to end and waits until it has: while its socket is there, a new shim of the same id would answer with its
   * address. A shim that has other tasks stays.
   */
  async #shutdown(shim: Shim, shared: boolean, logger: Logger): Promise<void> {
    const timeoutMs = this.timeouts.shimShutdownMs;
    try {
      await shim.call((task, call) => task.shutdown({ id: shim.bundle.id }, call), { timeoutMs });
      if (!shared) await waitAtMost(shim.closed, timeoutMs);
    } catch (error) {
      if (!isLost(error)) {
        logger.error("failed to shutdown shim task and the shim might be leaked", {
          error: messageOf(error),
        });
      }
    }
    shim.close();
  }

  /** How to reach the shim of the container's sandbox; undefined if it needs one of its own (`shim_manager.go`, `Start`). */
  async #sandboxBootstrap(
    scope: Scope,
    { sandboxId, address, version }: StartOptions,
  ): Promise<Bootstrap | undefined> {
    if (sandboxId === "") return undefined;
    try {
      await this.#dependencies.sandboxes.get(scope, sandboxId);
    } catch (error) {
      // Made by containerd 1.x, whose pods had a shim but no sandbox.
      if (isError(error, "NotFound")) return undefined;
      throw error;
    }
    if (address !== "") {
      const at = address.indexOf("+");
      if (at < 0) {
        throw new BunkerdError(
          "Unknown",
          "the scheme of sandbox address should be in  the form of <protocol>+<unix|vsock|tcp>, i.e. ttrpc+unix or grpc+vsock",
        );
      }
      return { version, protocol: address.slice(0, at), address: address.slice(at + 1) };
    }
    const shim = this.get(scope.namespace, sandboxId);
    if (shim === undefined) throw fail("NotFound", `can't find shim for sandbox ${sandboxId}`);
    return shim.bootstrap;
  }
}

/** Resolves with the promise or after the time, whichever is first. */
async function waitAtMost(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((resolve) => {
    timer = startTimer(resolve, timeoutMs);
  });
  await Promise.race([promise, over]);
  clearTimeout(timer);
}
