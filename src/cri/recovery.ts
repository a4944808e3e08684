/** Taking over what an earlier daemon, ours or containerd, has left (`internal/cri/server/restart.go`). */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Container as ContainerRecord } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { type Process, Status } from "#gen/containerd/v1/types/task_pb.ts";
import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { isError, messageOf, quote } from "../model/errors.ts";
import { endCutCheckpoint } from "./containers/checkpoint-folder.ts";
import { drainOutput, endOf, unknownExit, watchContainer } from "./containers/exit.ts";
import { controllerOf } from "./controllers.ts";
import { type Cri, scopeOf } from "./cri.ts";
import { ContainerIo } from "./io/container-io.ts";
import { usesHostNetwork } from "./network.ts";
import { CONTAINERS, containerPaths, SANDBOXES } from "./paths.ts";
import { ignoringNotFound } from "./records.ts";
import { watchSandbox } from "./sandboxes/exit.ts";
import { removeFolder } from "./sandboxes/files.ts";
import type { PodSandboxController } from "./sandboxes/pod-controller.ts";
import { PodSandbox } from "./sandboxes/pod-table.ts";
import { updatedResources } from "./sandboxes/resources.ts";
import { CONTAINER_EXTENSION, LABEL_KIND, SANDBOX_EXTENSION } from "./spec/labels.ts";
import { Container } from "./store/container.ts";
import { RECORD_EXTENSION, unpackContainerMetadata, unpackSandboxMetadata } from "./store/metadata.ts";
import { Sandbox, type SandboxState, type SandboxStatus } from "./store/sandbox.ts";
import { type ContainerStatus, loadStatus, NEW_STATUS, StatusFile, stateOf } from "./store/status-file.ts";
import { nanoseconds } from "./time.ts";
import { waitFor } from "./waiting.ts";

const KILL = 9;
/** Of one pod or container: one that hangs does not hold up the others. */
const LOAD_TIMEOUT_MS = 10_000;

/** Loads pods, then containers, each as it is; removes the folders of those that are gone. What fails concerns one and is logged. */
export async function recover(cri: Cri, pods: PodSandboxController): Promise<void> {
  const sandboxes = await recordsOf(cri, "sandbox");
  await each(cri, sandboxes, (record) => recoverPod(cri, pods, record));
  await recoverSandboxRecords(cri);
  const containers = await recordsOf(cri, "container");
  await each(cri, containers, (record) => recoverContainer(cri, record));
  const known = {
    [SANDBOXES]: new Set(sandboxes.map(({ id }) => id)),
    [CONTAINERS]: new Set(containers.map(({ id }) => id)),
  };
  for (const [name, ids] of Object.entries(known))
    for (const base of [cri.folders.root, cri.folders.state]) removeOrphans(cri, join(base, name), ids);
  await removeLeases(cri);
}

const ID = /^[0-9a-f]{64}$/;

/** Those of pods that did not come about, and of containers that were being made. */
async function removeLeases({ stores, sandboxes, logger }: Cri): Promise<void> {
  for (const { id } of await stores.leases.list(scopeOf())) {
    if (!ID.test(id) || sandboxes.find(id) !== undefined) continue;
    logger.debug("removing the lease of what was being made", { id });
    await ignoringNotFound(() => stores.leases.delete(scopeOf(), id));
  }
}

function recordsOf({ stores }: Cri, kind: "sandbox" | "container"): Promise<ContainerRecord[]> {
  return stores.containers.list(scopeOf(), [`labels.${quote(LABEL_KIND)}==${kind}`]);
}

async function each<T extends { readonly id: string }>(
  cri: Cri,
  records: readonly T[],
  load: (record: T) => Promise<void>,
): Promise<void> {
  await Promise.all(
    records.map((record) =>
      load(record).catch((error: unknown) =>
        cri.logger.error("failed to recover", { id: record.id, error: messageOf(error) }),
      ),
    ),
  );
}

async function recoverPod(cri: Cri, pods: PodSandboxController, record: ContainerRecord): Promise<void> {
  const { id } = record;
  const extension = record.extensions[SANDBOX_EXTENSION];
  if (extension === undefined) throw new Error(`metadata extension ${quote(SANDBOX_EXTENSION)} not found`);
  const metadata = unpackSandboxMetadata(extension);
  const createdAt = nanoseconds(record.createdAt);
  const pod = new PodSandbox(metadata, record.runtime as PodSandbox["runtime"]);
  pod.hasContainer = true;
  pod.createdAt = createdAt;
  const { state, pid } = await pauseState(cri, id);
  if (state === "not ready") pod.markExited(0, 0n);
  pod.state = state;
  pod.pid = pid;
  pods.adopt(pod);
  // Without its networks' answer nobody was told of the pod: its start was cut off.
  const whole = usesHostNetwork(metadata.config) || metadata.cniResult !== undefined;
  add(
    cri,
    new Sandbox(metadata, "podsandbox", {
      state: whole || state === "not ready" ? state : "unknown",
      pid,
      createdAt,
      exitedAt: 0n,
      exitStatus: 0,
      ...(await updatedResources(cri, id)),
    }),
  );
}

/** What the pause container does. One that does not run any more is deleted. */
async function pauseState(cri: Cri, id: string): Promise<{ state: SandboxState; pid: number }> {
  try {
    const task = await taskOf(cri, id);
    if (task?.status === Status.RUNNING) return { state: "ready", pid: task.pid };
    if (task !== undefined) await deleteTask(cri, id);
    return { state: "not ready", pid: 0 };
  } catch (error) {
    cri.logger.error("failed to load sandbox status", { id, error: messageOf(error) });
    return { state: "unknown", pid: 0 };
  }
}

async function taskOf({ tasks }: Cri, id: string): Promise<Process | undefined> {
  try {
    return await tasks.get(scopeOf(AbortSignal.timeout(LOAD_TIMEOUT_MS)), { containerId: id, execId: "" });
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}

async function deleteTask({ tasks }: Cri, id: string): Promise<void> {
  const scope = scopeOf(AbortSignal.timeout(LOAD_TIMEOUT_MS));
  const name = { containerId: id, execId: "" };
  await ignoringNotFound(() => tasks.kill(scope, name, KILL, true));
  await ignoringNotFound(async () => {
    await tasks.wait(scope, name);
    await tasks.delete(scope, id);
  });
}

function add(cri: Cri, sandbox: Sandbox): void {
  const { id, metadata, status } = sandbox;
  cri.sandboxes.add(sandbox);
  cri.sandboxNames.reserve(metadata.name, id);
  cri.host.selinux?.reserve(metadata.processLabel);
  if (status.state !== "not ready") watchSandbox(cri, sandbox);
}

/** Sandboxes without a pause container: another controller's, or one whose start was cut off before it had one. */
async function recoverSandboxRecords(cri: Cri): Promise<void> {
  for (const record of await cri.stores.sandboxes.list(scopeOf())) {
    const { sandboxId: id, sandboxer } = record;
    if (cri.sandboxes.find(id) !== undefined) continue;
    const extension = record.extensions[RECORD_EXTENSION];
    // Not a pod's: `ctr` makes such.
    if (extension === undefined) continue;
    try {
      const metadata = unpackSandboxMetadata(extension);
      const status = await controllerStatus(cri, sandboxer, id);
      add(cri, new Sandbox(metadata, sandboxer, { ...status, createdAt: nanoseconds(record.createdAt) }));
    } catch (error) {
      cri.logger.error("failed to recover", { id, error: messageOf(error) });
    }
  }
}

async function controllerStatus(cri: Cri, sandboxer: string, id: string): Promise<SandboxStatus> {
  const status = { pid: 0, createdAt: 0n, exitedAt: 0n, exitStatus: 0 };
  try {
    const found = await controllerOf(cri, sandboxer).status(scopeOf(), id, false);
    const state = found.state === "SANDBOX_READY" ? "ready" : "not ready";
    return { ...status, state, pid: found.pid };
  } catch (error) {
    return { ...status, state: isError(error, "NotFound") ? "not ready" : "unknown" };
  }
}

async function recoverContainer(cri: Cri, record: ContainerRecord): Promise<void> {
  const { id } = record;
  const extension = record.extensions[CONTAINER_EXTENSION];
  if (extension === undefined) throw new Error(`metadata extension ${quote(CONTAINER_EXTENSION)} not found`);
  const metadata = unpackContainerMetadata(extension);
  const folder = containerPaths(cri.folders, id).root;
  const saved = await loadStatus(folder).catch((error: unknown): ContainerStatus => {
    cri.logger.warn("failed to load container status", { id, error: messageOf(error) });
    return { ...NEW_STATUS, exitCode: unknownExit(cri).exitStatus, reason: "Unknown", unknown: true };
  });
  const file = new StatusFile(folder, saved);
  const container = new Container(metadata, file, undefined);
  let runs = false;
  try {
    await endedCheckpoint(cri, id);
    runs = await adoptTask(cri, container, saved);
  } catch (error) {
    cri.logger.error("failed to load container status", { id, error: messageOf(error) });
    file.set({ unknown: true });
  }
  if (file.state === ContainerState.CONTAINER_EXITED) container.markStopped();
  cri.containers.add(container);
  cri.containerNames.reserve(metadata.name, id);
  cri.host.selinux?.reserve(metadata.processLabel);
  if (runs) watchContainer(cri, container);
}

/** One whose CRIU is still at work goes on being ended. */
async function endedCheckpoint(cri: Cri, id: string): Promise<void> {
  const ended = cri.checkpoints.run(id, () => endCutCheckpoint(cri, id));
  try {
    await waitFor(ended, AbortSignal.timeout(LOAD_TIMEOUT_MS));
  } catch (error) {
    cri.logger.error("failed to end a checkpoint that was cut off", { id, error: messageOf(error) });
  }
}

/** Compares what was written down with what the task does. True if it runs. */
async function adoptTask(cri: Cri, container: Container, saved: ContainerStatus): Promise<boolean> {
  const { id, status } = container;
  const task = await taskOf(cri, id);
  const state = stateOf(saved);
  const now = cri.clock.now();
  switch (task?.status) {
    case undefined:
      if (state === ContainerState.CONTAINER_CREATED) container.io = newIo(cri, container);
      if (state === ContainerState.CONTAINER_RUNNING) {
        const { exitStatus: exitCode } = unknownExit(cri);
        await status.save(() => ({ pid: 0, finishedAt: now, exitCode, reason: "Unknown" }));
      }
      return false;
    case Status.CREATED:
      // Its start was cut off.
      await deleteTask(cri, id);
      if (state !== ContainerState.CONTAINER_CREATED)
        throw new Error(`unexpected container state for created task: ${state}`);
      container.io = newIo(cri, container);
      return false;
    case Status.RUNNING:
    case Status.PAUSED:
    case Status.PAUSING:
      if (state === ContainerState.CONTAINER_EXITED)
        throw new Error("unexpected container state for running task: exited");
      container.io = await reopenIo(cri, container, task);
      // Started, but that was not written down any more.
      if (state !== ContainerState.CONTAINER_RUNNING)
        await status.save(() => ({ startedAt: now, pid: task.pid, unknown: false }));
      return true;
    case Status.STOPPED: {
      container.io = await reopenIo(cri, container, task);
      await drainOutput(cri, container);
      const finishedAt = endOf(saved.startedAt, nanoseconds(task.exitedAt) || now);
      await status.save(() => ({
        ...{ pid: 0, finishedAt, exitCode: task.exitStatus, unknown: false },
        ...(state === ContainerState.CONTAINER_CREATED ? { startedAt: finishedAt } : {}),
      }));
      // Not before: nobody else knows what it came to.
      await deleteTask(cri, id);
      return false;
    }
    default:
      throw new Error(`unexpected task status ${task?.status}`);
  }
}

function newIo(cri: Cri, { id, metadata }: Container): ContainerIo {
  const { tty, stdin, stdinOnce } = metadata.config;
  const { state: root } = containerPaths(cri.folders, id);
  return ContainerIo.create({ id, root, tty, stdin, stdinOnce }, cri);
}

/** What lies in the pipes goes to the log; the shim has them open. */
async function reopenIo(cri: Cri, { id, metadata }: Container, task: Process): Promise<ContainerIo> {
  const { stdin, stdout, stderr, terminal } = task;
  const stdinOnce = metadata.config.stdinOnce;
  const io = ContainerIo.reopen({ stdin, stdout, stderr, terminal }, { id, stdinOnce }, cri);
  await io.openLog(metadata.logPath, cri.config.runtime.max_container_log_line_size);
  io.start();
  io.writerCame();
  return io;
}

function removeOrphans(cri: Cri, base: string, known: ReadonlySet<string>): void {
  let names: string[];
  try {
    names = readdirSync(base);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  for (const name of names.filter((one) => !known.has(one))) {
    try {
      removeFolder("orphaned directory", join(base, name));
    } catch (error) {
      cri.logger.warn("failed to remove an orphaned directory", {
        path: join(base, name),
        error: messageOf(error),
      });
    }
  }
}
