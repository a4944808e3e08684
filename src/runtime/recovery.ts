import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../lib/log.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import { type Bundle, bundleAt, deleteBundle } from "./bundle.ts";
import { isLost, type Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";

export interface RecoveryDependencies {
  readonly shims: Shims;
  readonly sandboxes: SandboxStore;
  readonly logger: Logger;
}

/** A start waits no longer for shims that do not answer; they are taken over all the same. */
const GRACE_MS = 1000;

/**
 * Takes over the tasks that an earlier daemon left: shims that live are connected to, what dead ones left is removed, so are shims
 * that never got a task. All at once; resolves when each has answered, or has been given a second to.
 * Source: `core/runtime/v2/shim_load.go`. Unlike there, a shim that hangs keeps its task, and one whose task has ended keeps its exit status.
 */
export async function recoverShims(dependencies: RecoveryDependencies): Promise<void> {
  const { shims, logger } = dependencies;
  const bundles = await bundlesBelow(shims.folders.state, shims, logger);
  const recovered = Promise.all(bundles.map((bundle) => recover(bundle, dependencies)));
  let timer: ReturnType<typeof setTimeout> | undefined;
  const grace = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, GRACE_MS);
  });
  await Promise.race([recovered, grace]);
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
async function recover(bundle: Bundle, dependencies: RecoveryDependencies): Promise<void> {
  const logger = dependencies.logger.with({ namespace: bundle.namespace, id: bundle.id });
  try {
    if ((await readdir(bundle.path)).length === 0) await deleteBundle(bundle);
    else await takeOver(bundle, { ...dependencies, logger });
  } catch (error) {
    logger.error("failed to load shim", { path: bundle.path, error: messageOf(error) });
  }
}

async function takeOver(bundle: Bundle, { shims, sandboxes, logger }: RecoveryDependencies): Promise<void> {
  let shim: Shim;
  try {
    shim = await shims.adopt(bundle);
  } catch (error) {
    // Of a shim that is there and cannot be talked to, the container lives on.
    if (!isError(error, "NotFound")) throw error;
    logger.warn("cleaning up a bundle without a shim", { error: messageOf(error) });
    await shims.clear(bundle);
    return;
  }
  const { id, namespace } = bundle;
  try {
    const timeoutMs = shims.timeouts.shimLoadMs;
    await shim.call((task, call) => task.state({ id }, call), { timeoutMs });
    logger.debug("took over a task");
  } catch (error) {
    if (isLost(error)) await shim.buried;
    else if (!isError(error, "NotFound")) {
      logger.warn("failed to query shim, keeping its task", { error: messageOf(error) });
    } else if (!(await isSandbox(sandboxes, namespace, id))) {
      logger.info("cleaning leaked shim process");
      await shims.discard(shim);
    }
  }
}

async function isSandbox(sandboxes: SandboxStore, namespace: string, id: string): Promise<boolean> {
  try {
    await sandboxes.get({ namespace }, id);
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
