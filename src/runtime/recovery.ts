import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore } from "../model/containers.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import { killAbandonedStart } from "./abandoned.ts";
import { type Bundle, bundleAt, deleteBundle } from "./bundle.ts";
import { isLost, type Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";

export interface RecoveryDependencies {
  readonly shims: Shims;
  readonly containers: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly logger: Logger;
}

/** The controller of pods of old. */
const PAUSING = "podsandbox";
/** A start waits no longer for a shim that does not answer; it is taken over all the same. */
const GRACE_MS = 1000;

/**
 * Takes over the tasks that an earlier daemon left: shims that live are connected to, what dead ones left is removed, so are shims
 * that never got a task. All at once; resolves when each is done, but for those that do not answer within a second.
 * Source: `core/runtime/v2/shim_load.go`. Unlike there, a shim that hangs keeps its task, and one whose task has ended keeps its exit status.
 */
export async function recoverShims(dependencies: RecoveryDependencies): Promise<void> {
  const { shims, logger } = dependencies;
  const bundles = await bundlesBelow(shims.folders.state, shims, logger);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const grace = new Promise<"hangs">((resolve) => {
    timer = setTimeout(resolve, GRACE_MS, "hangs");
  });
  await Promise.all(
    bundles.map(async (bundle) => {
      const answered = Promise.withResolvers<"answered">();
      const recovered = recover(bundle, dependencies, () => answered.resolve("answered"));
      const first = await Promise.race([recovered, answered.promise, grace]);
      if (first === "answered") await recovered;
    }),
  );
  clearTimeout(timer);
  await removeWorkFolders(bundles, dependencies);
}

/** Also removes what a removal that was cut off has left under a hidden name. */
async function bundlesBelow(state: string, shims: Shims, logger: Logger): Promise<Bundle[]> {
  const bundles: Bundle[] = [];
  for (const namespace of await foldersIn(state)) {
    for (const id of await foldersIn(join(state, namespace))) {
      if (!id.startsWith(".")) bundles.push(bundleAt(shims.folders, namespace, id));
      else await removeHidden(join(state, namespace, id), logger);
    }
  }
  return bundles;
}

async function removeHidden(path: string, logger: Logger): Promise<void> {
  await rm(path, { recursive: true, force: true }).catch((error: unknown) =>
    logger.error("failed to remove the rest of a bundle", { path, error: messageOf(error) }),
  );
}

async function foldersIn(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Never rejects: what fails concerns one bundle. */
async function recover(
  bundle: Bundle,
  dependencies: RecoveryDependencies,
  answered: () => void,
): Promise<void> {
  const logger = dependencies.logger.with({ namespace: bundle.namespace, id: bundle.id });
  try {
    if (await isForeign(bundle, dependencies))
      logger.warn("bundle of a daemon with another root, left alone");
    else if ((await readdir(bundle.path)).length === 0) await deleteBundle(bundle);
    else await takeOver(bundle, { ...dependencies, logger }, answered);
  } catch (error) {
    logger.error("failed to load shim", { path: bundle.path, error: messageOf(error) });
  }
}

/** Of a container that is not known here, and made by a daemon with another root: one of the two has the wrong root or state, or runs beside this one. */
async function isForeign(bundle: Bundle, stores: RecoveryDependencies): Promise<boolean> {
  try {
    if (readlinkSync(join(bundle.path, "work")) === bundle.work) return false;
  } catch (error) {
    // It was cut off before it had one.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
  return !(await isKnown(stores, bundle));
}

async function takeOver(
  bundle: Bundle,
  dependencies: RecoveryDependencies,
  answered: () => void,
): Promise<void> {
  const { shims, sandboxes, logger } = dependencies;
  let shim: Shim;
  try {
    shim = await shims.adopt(bundle);
  } catch (error) {
    // Of a shim that is there and cannot be talked to, the container lives on.
    if (!isError(error, "NotFound")) throw error;
    const processes = await killAbandonedStart(bundle);
    logger.warn("cleaning up a bundle without a shim", { error: messageOf(error), processes });
    answered();
    await shims.clear(bundle);
    return;
  }
  try {
    const status = await statusOf(shim, shims.timeouts.shimLoadMs, answered);
    if (status === undefined) {
      if (await isOwnSandbox(sandboxes, bundle)) return;
      logger.info("cleaning leaked shim process");
      await shims.discard(shim);
      return;
    }
    const alive = status !== Status.STOPPED && status !== Status.CREATED;
    // Nobody can reach the task any more, and it does nothing.
    if (!alive && !(await isKnown(dependencies, bundle))) await shims.discard(shim);
    else logger.debug("took over a task");
  } catch (error) {
    answered();
    if (isLost(error)) await shim.buried;
    else logger.warn("failed to query shim, keeping its task", { error: messageOf(error) });
  }
}

/** The state of the shim's task, undefined if it has none. One whose creation was under way is waited for. */
async function statusOf(shim: Shim, timeoutMs: number, answered: () => void): Promise<Status | undefined> {
  const { id } = shim.bundle;
  const deadline = performance.now() + Math.min(CHILDREN_WAIT_MS, timeoutMs);
  const ask = (): Promise<Status | undefined> =>
    shim
      .call((task, call) => task.state({ id }, call), { timeoutMs })
      .then(({ status }) => status, undefinedIfNotFound);
  let status = await ask();
  answered();
  if (status !== undefined) return status;
  const { shimPid } = await shim.call((task, call) => task.connect({ id }, call), { timeoutMs });
  // While it has a child, runc is at work. Cut off, that would leave cgroups that nobody knows of.
  while (hasChildren(shimPid) && performance.now() < deadline) {
    await Bun.sleep(CHILDREN_POLL_MS);
    status = await ask();
    if (status !== undefined) return status;
  }
  return await ask();
}

function undefinedIfNotFound(error: unknown): undefined {
  if (!isError(error, "NotFound")) throw error;
}

const CHILDREN_POLL_MS = 10;
const CHILDREN_WAIT_MS = 1000;

function hasChildren(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((thread) => {
      return readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").trim() !== "";
    });
  } catch {
    // It has ended, and its children are others' now.
    return false;
  }
}

/** True of a shim that runs a sandbox without a task; a pod's of old is nothing without its pause container's. */
async function isOwnSandbox(sandboxes: SandboxStore, { namespace, id }: Bundle): Promise<boolean> {
  try {
    return (await sandboxes.get({ namespace }, id)).sandboxer !== PAUSING;
  } catch (error) {
    if (isError(error, "NotFound")) return false;
    throw error;
  }
}

async function isKnown(stores: RecoveryDependencies, { namespace, id }: Bundle): Promise<boolean> {
  return (
    (await exists(() => stores.containers.get({ namespace }, id))) ||
    (await exists(() => stores.sandboxes.get({ namespace }, id)))
  );
}

async function exists(get: () => Promise<object>): Promise<boolean> {
  try {
    await get();
    return true;
  } catch (error) {
    if (isError(error, "NotFound")) return false;
    throw error;
  }
}

/** After a reboot the state is empty, but not the root. */
async function removeWorkFolders(
  bundles: readonly Bundle[],
  { shims, logger }: RecoveryDependencies,
): Promise<void> {
  const { root } = shims.folders;
  const kept = new Set(bundles.map(({ work }) => work));
  for (const namespace of await foldersIn(root)) {
    for (const id of await foldersIn(join(root, namespace))) {
      const path = join(root, namespace, id);
      if (!kept.has(path)) await removeHidden(path, logger);
    }
  }
}
