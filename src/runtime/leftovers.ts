import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../lib/clock.ts";
import { ifThere } from "../lib/if-there.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore } from "../model/containers.ts";
import { BunkerdError, isError, messageOf } from "../model/errors.ts";
import type { Exit } from "../model/tasks.ts";
import { killAbandonedStart } from "./abandoned.ts";
import { type Bootstrap, readBootstrap } from "./bootstrap.ts";
import { type Bundle, deleteBundle, SPEC_FILE } from "./bundle.ts";
import { removeEmptyCgroups } from "./cgroup.ts";
import { removeDeadSocket } from "./dead-socket.ts";
import { resolveRuntime } from "./runtime-path.ts";
import { deleteByShim, type ShimSettings } from "./shim-command.ts";
import { parseSpec } from "./spec.ts";
import { timestamp } from "./timestamp.ts";

/** In a bundle: which program its shim is. */
export const BINARY_FILE = "shim-binary-path";
/** What a task came to whose shim died and cannot be asked. */
const UNKNOWN_EXIT_STATUS = 255;

export interface LeftoversDependencies {
  readonly settings: ShimSettings;
  /** How long a shim's program may take to clean up. */
  readonly timeoutMs: number;
  readonly containers: ContainerStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What shims leave that died, or that nobody can reach. Failures are logged: whoever finds leftovers has other things to do. */
export class Leftovers {
  readonly #given: LeftoversDependencies;

  constructor(given: LeftoversDependencies) {
    this.#given = given;
  }

  /**
   * Removes what is left of a task without a shim: processes, cgroup, mounts, bundle. Answers what the container came to, as far
   * as the shim's program can tell. The bundle of a task that could not be killed stays for the next start.
   */
  async remove(bundle: Bundle): Promise<Exit> {
    const logger = this.#loggerOf(bundle);
    const bootstrap = await readBootstrap(bundle.path).catch((error: unknown) => {
      if (!isError(error, "NotFound"))
        logger.warn("cannot read where a lost shim listened", { error: messageOf(error) });
      return undefined;
    });
    const program = programOf(bundle) ?? (await this.#programOfContainer(bundle));
    const exit = program === undefined ? undefined : await this.deleteByProgram(bundle, program);
    // A shim that never told its address never got a container.
    if (exit !== undefined || program === undefined || bootstrap === undefined) {
      await removeEmptyCgroups(cgroupsPathOf(bundle));
      await deleteBundle(bundle).catch((error: unknown) =>
        logger.error("failed to delete bundle", { error: messageOf(error) }),
      );
    }
    await this.#removeSocket(bundle, bootstrap);
    const exitedAt = timestamp(this.#given.clock.now());
    return exit ?? { pid: 0, exitStatus: UNKNOWN_EXIT_STATUS, exitedAt };
  }

  /** Lets the shim's program kill and unmount. Undefined if it cannot. */
  async deleteByProgram(bundle: Bundle, program: string): Promise<Exit | undefined> {
    const { settings, timeoutMs } = this.#given;
    try {
      const { pid, exitStatus, exitedAt } = await deleteByShim({ program, bundle, settings }, timeoutMs);
      return { pid, exitStatus, exitedAt };
    } catch (error) {
      this.#loggerOf(bundle).warn("failed to clean up by the shim's program", { error: messageOf(error) });
      return undefined;
    }
  }

  /** A start that failed or was cut off may have made its shim already, which nobody would ever reach; one that died may have left hooks. */
  async killShim(bundle: Bundle): Promise<void> {
    const processes = await killAbandonedStart(bundle);
    if (processes === 0) return;
    this.#loggerOf(bundle).info("killed what a shim has left behind", { processes });
    await this.#removeSocket(bundle, undefined);
  }

  async #removeSocket(bundle: Bundle, bootstrap: Bootstrap | undefined): Promise<void> {
    await removeDeadSocket(bootstrap ?? this.#unsaid(bundle)).catch((error: unknown) =>
      this.#loggerOf(bundle).error("failed to remove the socket of a dead shim", { error: messageOf(error) }),
    );
  }

  /** Where runc's shim listens, of one that could not answer it any more: `pkg/shim/util_unix.go`, `CreateSocketAddress`. */
  #unsaid({ namespace, id }: Bundle): Bootstrap {
    const { address, socketDir } = this.#given.settings;
    const name = createHash("sha256")
      .update(join(address, namespace, id))
      .digest("hex");
    return {
      version: 2,
      protocol: "ttrpc",
      address: `unix://${join(socketDir || "/run/containerd/s", name)}`,
    };
  }

  /** Bundles of containerd before 1.6 do not name their shim. */
  async #programOfContainer({ namespace, id }: Bundle): Promise<string | undefined> {
    try {
      const { runtime } = await this.#given.containers.get({ namespace }, id);
      return resolveRuntime(runtime?.name ?? "");
    } catch (error) {
      if (error instanceof BunkerdError) return undefined;
      throw error;
    }
  }

  #loggerOf({ namespace, id }: Bundle): Logger {
    return this.#given.logger.with({ namespace, id });
  }
}

/** The program of a bundle's shim; undefined if nothing says it. */
export function programOf({ path }: Bundle): string | undefined {
  return ifThere(() => readFileSync(join(path, BINARY_FILE), "utf8"));
}

/** Empty if there is no spec, or none that can be read: whoever wrote it has been told. */
function cgroupsPathOf({ path }: Bundle): string {
  try {
    return parseSpec(readFileSync(join(path, SPEC_FILE))).linux?.cgroupsPath ?? "";
  } catch {
    return "";
  }
}
