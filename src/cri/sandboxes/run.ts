import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { type Sandbox as SandboxRecord, SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import {
  ContainerEventType,
  PodSandboxConfigSchema,
  type PodSandboxMetadata,
  type RunPodSandboxRequest,
  RunPodSandboxRequestSchema,
} from "#gen/runtime/v1/api_pb.ts";
import type { RuntimeHandlerConfig } from "../../config/config.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { createNetworkNamespace, networkNamespacePath, removeNetworkNamespace } from "../../linux/netns.ts";
import { createUserNetworkNamespace } from "../../linux/user-netns.ts";
import { BunkerdError, isError, messageOf, quote } from "../../model/errors.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { setUpNetwork, tearDownNetwork, usesHostNetwork } from "../network.ts";
import { holdingPlugins, tellPodRuns } from "../nri/events.ts";
import { ignoringNotFound, step } from "../records.ts";
import { Rollback } from "../rollback.ts";
import { handlerOf } from "../runtimes.ts";
import { runtimeOptions } from "../spec/runtime-options.ts";
import { sendContainerEvent } from "../status-events.ts";
import { packSandboxMetadata, RECORD_EXTENSION, type SandboxMetadata } from "../store/metadata.ts";
import type { Caller, Operation } from "../store/operations.ts";
import { Sandbox } from "../store/sandbox.ts";
import { nanoseconds } from "../time.ts";
import { watchSandbox } from "./exit.ts";
import type { RecordedPause } from "./pod-table.ts";
import { podIdMapping } from "./user-namespace.ts";

/** Makes and starts a pod's sandbox; its id. A request that is under way already is joined. Source of the rules: `internal/cri/server/sandbox_run.go`. */
export async function runPodSandbox(
  cri: Cri,
  request: RunPodSandboxRequest,
  caller: Caller,
): Promise<string> {
  const metadata = request.config?.metadata;
  if (metadata === undefined) throw new BunkerdError("Unknown", "sandbox config must include metadata");
  const name = sandboxName(metadata);
  const bytes = toBinary(RunPodSandboxRequestSchema, request);
  return await cri.sandboxOperations.join(name, bytes, caller, (operation) =>
    run(cri, request, name, operation),
  );
}

/** Unique as long as pods are. */
function sandboxName({ name, namespace, uid, attempt }: PodSandboxMetadata): string {
  return [name, namespace, uid, attempt].join("_");
}

/** The controller of pods with a pause container. */
const PAUSING = "podsandbox";

/** 64 hexadecimal characters. */
export function newId(): string {
  return randomBytes(32).toString("hex");
}

async function run(
  cri: Cri,
  request: RunPodSandboxRequest,
  name: string,
  operation: Operation,
): Promise<string> {
  const id = newId();
  const logger = cri.logger.with({ id, name });
  await step(`failed to reserve sandbox name ${quote(name)}`, () => cri.sandboxNames.reserve(name, id));
  const pod: Draft = { cri, request, name, id, operation, rollback: new Rollback(), sandbox: undefined };
  pod.rollback.add("sandbox name", async () => cri.sandboxNames.release(id));
  try {
    await start(pod);
    return id;
  } catch (error) {
    operation.stage = "rollback";
    const left = await pod.rollback.run(logger, cri.config.cleanupTimeoutMs);
    // What could not be removed is the kubelet's to stop and remove.
    if (left !== undefined && pod.sandbox !== undefined) {
      pod.sandbox.update({ state: "unknown" });
      if (cri.sandboxes.find(id) === undefined) cri.sandboxes.add(pod.sandbox);
    }
    throw error;
  }
}

/** A pod that is being made. */
interface Draft {
  readonly cri: Cri;
  readonly request: RunPodSandboxRequest;
  readonly name: string;
  readonly id: string;
  readonly operation: Operation;
  readonly rollback: Rollback;
  sandbox: Sandbox | undefined;
}

/** The next step begins, unless nobody wants the pod any more. */
function enter({ operation }: Pick<Draft, "operation">, stage: string): void {
  operation.signal.throwIfAborted();
  operation.stage = stage;
  failpoint(`cri.run.${stage}`);
}

async function start(pod: Draft): Promise<void> {
  const { cri, id } = pod;
  const config = pod.request.config as NonNullable<RunPodSandboxRequest["config"]>;
  const handler = await step(`unable to get OCI runtime for sandbox ${quote(id)}`, () =>
    handlerOf(cri.config, config, pod.request.runtimeHandler),
  );
  const sandbox = new Sandbox(newMetadata(pod), handler.sandboxer || PAUSING, {
    state: "unknown",
    pid: 0,
    createdAt: cri.clock.now(),
    exitedAt: 0n,
    exitStatus: 0,
  });
  pod.sandbox = sandbox;
  const record = newRecord(sandbox, handler);
  // It starts to work at once; others want their networks first.
  if (sandbox.sandboxer === PAUSING) await createSandbox(pod, sandbox, record);
  await keepRecord(pod, record);
  if (!usesHostNetwork(config)) await makeNetworkNamespace(pod, sandbox.metadata);
  await attachAndStart(pod, sandbox, record);

  enter(pod, "ready");
  await holdingPlugins(cri, async () => {
    await tellPodRuns(cri, sandbox, pod.operation.signal);
    sandbox.update({ state: "ready" });
    cri.sandboxes.add(sandbox);
  });
  sendContainerEvent(cri, id, id, ContainerEventType.CONTAINER_CREATED_EVENT);
  watchSandbox(cri, sandbox);
  sendContainerEvent(cri, id, id, ContainerEventType.CONTAINER_STARTED_EVENT);
}

/** Lease and record, in one write. What is made after them is found again by them, whatever happens. */
async function keepRecord(
  { cri, id, name, rollback, operation }: Draft,
  record: SandboxRecord,
): Promise<void> {
  enter({ operation }, "lease");
  enter({ operation }, "record");
  rollback.add("lease", (signal) => deleteLease(cri, id, signal));
  rollback.add("sandbox record", (signal) =>
    ignoringNotFound(() => cri.stores.sandboxes.delete(scopeOf(signal), id)),
  );
  await bothOf(
    step(`failed to create lease for sandbox name ${quote(name)}`, () =>
      cri.stores.leases.create(scopeOf(operation.signal), { id }),
    ),
    step("failed to save sandbox metadata", () => cri.stores.sandboxes.create(scopeOf(), record)),
  );
}

function newMetadata({ cri, request, id, name }: Draft): SandboxMetadata {
  const { config, runtimeHandler } = request;
  if (config === undefined) throw new Error("a pod without a configuration was begun");
  return {
    id,
    name,
    config,
    // Known before it is made, so that it is found again whatever happens.
    netnsPath: usesHostNetwork(config) ? "" : networkNamespacePath(netnsFolder(cri)),
    ip: "",
    additionalIps: [],
    runtimeHandler,
    cniResult: undefined,
    processLabel: "",
  };
}

function newRecord(sandbox: Sandbox, handler: RuntimeHandlerConfig): SandboxRecord {
  const options = runtimeOptions(handler);
  return create(SandboxSchema, {
    sandboxId: sandbox.id,
    runtime: { name: handler.runtime_type, ...(options === undefined ? {} : { options }) },
    sandboxer: sandbox.sandboxer,
    labels: { name: sandbox.metadata.name },
    extensions: { [RECORD_EXTENSION]: packSandboxMetadata(sandbox.metadata) },
  });
}

async function deleteLease(cri: Cri, id: string, signal: AbortSignal): Promise<void> {
  try {
    await cri.stores.leases.delete(scopeOf(signal), id);
  } catch (error) {
    // It keeps nothing: that it stays is no reason to keep the pod.
    if (!isError(error, "NotFound"))
      cri.logger.error("failed to delete lease during cleanup", { id, error: messageOf(error) });
  }
}

/** The default of `ip netns`. */
const NETNS_FOLDER = "/var/run/netns";

function netnsFolder({ config, folders }: Cri): string {
  return config.runtime.netns_mounts_under_state_dir ? join(folders.state, "netns") : NETNS_FOLDER;
}

async function makeNetworkNamespace(pod: Draft, { config, netnsPath }: SandboxMetadata): Promise<void> {
  const { rollback, id } = pod;
  enter(pod, "network namespace");
  rollback.add("network namespace", async () => removeNetworkNamespace(netnsPath));
  try {
    const users = podIdMapping(config.linux?.securityContext?.namespaceOptions?.usernsOptions);
    if (users === undefined) createNetworkNamespace(netnsPath);
    else await createUserNetworkNamespace(netnsPath, users.uid, users.gid);
  } catch (cause) {
    const failure = `failed to create network namespace for sandbox ${quote(id)}: ${messageOf(cause)}`;
    throw new BunkerdError("Unknown", failure, { cause });
  }
}

async function saveRecord(
  { cri, id }: Draft,
  { metadata }: Sandbox,
  record: SandboxRecord,
  fields: readonly string[],
): Promise<void> {
  record.extensions[RECORD_EXTENSION] = packSandboxMetadata(metadata);
  await step(`unable to save sandbox ${quote(id)} to sandbox store`, () =>
    cri.stores.sandboxes.update(scopeOf(), record, fields),
  );
}

const STARTED_FIELDS = ["extensions", "spec", "labels"];

/**
 * Networks and pause container, side by side where the container does not need to know of the networks to start: a pause container has
 * its namespace, and that is enough.
 */
async function attachAndStart(pod: Draft, sandbox: Sandbox, record: SandboxRecord): Promise<void> {
  const { cri, id } = pod;
  const pauses = sandbox.sandboxer === PAUSING;
  if (usesHostNetwork(sandbox.metadata.config)) {
    if (!pauses) await createSandbox(pod, sandbox, record);
    await startSandbox(pod, sandbox, record);
    await saveRecord(pod, sandbox, record, STARTED_FIELDS);
    return;
  }
  enter(pod, "network");
  undoAttachment(pod, sandbox);
  if (!pauses) {
    await attach(pod, sandbox);
    await saveRecord(pod, sandbox, record, ["extensions"]);
    await createSandbox(pod, sandbox, record);
    await startSandbox(pod, sandbox, record);
    await saveNetwork(pod, sandbox, record);
    return;
  }
  const started = startSandbox(pod, sandbox, record);
  const attached = beginning().then(() => attach(pod, sandbox));
  // Saved while the container is still being started: that changes nothing of it.
  const saved = attached.then(async () => {
    const recorded = await Promise.race([cri.pauses.recorded(id), started]);
    if (recorded !== undefined) takeRecorded(sandbox, record, recorded);
    await saveNetwork(pod, sandbox, record);
  });
  await bothOf(attached, started, saved);
}

/** To start plugins blocks for milliseconds, which the disk may spend on the pause container's snapshot. */
async function beginning(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** What is known of the networks and of the pause container, of which the pod's record and the container's tell. */
async function saveNetwork(pod: Draft, sandbox: Sandbox, record: SandboxRecord): Promise<void> {
  const { cri, id } = pod;
  enter(pod, "network result");
  await bothOf(
    saveRecord(pod, sandbox, record, STARTED_FIELDS),
    step(`unable to save sandbox ${quote(id)}`, () =>
      controllerOf(cri, sandbox.sandboxer).update(scopeOf(), id, record, ["extensions"]),
    ),
  );
}

function takeRecorded(sandbox: Sandbox, record: SandboxRecord, { labels, spec }: RecordedPause): void {
  sandbox.metadata = { ...sandbox.metadata, processLabel: labels["selinux_label"] ?? "" };
  record.labels = { ...labels };
  if (spec !== undefined) record.spec = spec;
}

/** Waits for both also if one fails, so that what is undone is not still being done. @throws the first failure */
async function bothOf(...promises: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

function undoAttachment({ cri, rollback, id }: Draft, sandbox: Sandbox): void {
  rollback.add("network", async (signal) => {
    try {
      await tearDownNetwork(cri, sandbox.metadata, signal);
    } catch (error) {
      // Without a result nothing says that there was anything to tear down.
      if (sandbox.metadata.cniResult !== undefined) throw error;
      cri.logger.warn("failed to tear down a network that was not set up", { id, error: messageOf(error) });
    }
  });
}

async function attach({ cri, operation, id }: Draft, sandbox: Sandbox): Promise<void> {
  const network = await step(`failed to setup network for sandbox ${quote(id)}`, () =>
    setUpNetwork(cri, sandbox.metadata, operation.signal),
  );
  sandbox.metadata = { ...sandbox.metadata, ...network };
}

async function createSandbox(
  { cri, id, rollback, operation }: Draft,
  sandbox: Sandbox,
  record: SandboxRecord,
): Promise<void> {
  const { config, netnsPath } = sandbox.metadata;
  enter({ operation }, "create");
  const controller = controllerOf(cri, sandbox.sandboxer);
  rollback.add("created sandbox", (signal) => controller.shutdown(scopeOf(signal), id));
  await step(`failed to create sandbox ${quote(id)}`, () =>
    controller.create(scopeOf(operation.signal), {
      sandbox: record,
      rootfs: [],
      options: anyPack(PodSandboxConfigSchema, config),
      netnsPath,
      annotations: config.annotations,
    }),
  );
}

async function startSandbox(
  { cri, id, rollback, operation }: Draft,
  sandbox: Sandbox,
  record: SandboxRecord,
): Promise<void> {
  const controller = controllerOf(cri, sandbox.sandboxer);
  enter({ operation }, "start");
  // Before the networks are taken from it; what has been shut down once is not there any more.
  rollback.add("sandbox", async (signal) => {
    await ignoringNotFound(() => controller.stop(scopeOf(signal), id, 0));
    await controller.shutdown(scopeOf(signal), id);
  });
  const started = await step(`failed to start sandbox ${quote(id)}`, () =>
    controller.start(scopeOf(operation.signal), id),
  );
  sandbox.endpoint = { address: started.address, version: started.version };
  const processLabel = started.labels["selinux_label"] ?? "";
  rollback.add("SELinux label", async () => cri.host.selinux?.release(processLabel));
  takeRecorded(sandbox, record, started);
  sandbox.update({ pid: started.pid, createdAt: nanoseconds(started.createdAt) });
}
