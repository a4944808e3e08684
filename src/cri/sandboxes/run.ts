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
import type { SandboxController } from "../../model/sandboxes.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { setUpNetwork, tearDownNetwork, usesHostNetwork } from "../network.ts";
import { holdingPlugins, tellPodRuns } from "../nri/events.ts";
import { step } from "../records.ts";
import { Rollback } from "../rollback.ts";
import { handlerOf } from "../runtimes.ts";
import { runtimeOptions } from "../spec/runtime-options.ts";
import { sendContainerEvent } from "../status-events.ts";
import { packSandboxMetadata, RECORD_EXTENSION, type SandboxMetadata } from "../store/metadata.ts";
import type { Caller, Operation } from "../store/operations.ts";
import { Sandbox } from "../store/sandbox.ts";
import { nanoseconds } from "../time.ts";
import { watchSandbox } from "./exit.ts";
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
function enter({ operation }: Draft, stage: string): void {
  operation.signal.throwIfAborted();
  operation.stage = stage;
  failpoint(`cri.run.${stage}`);
}

async function start(pod: Draft): Promise<void> {
  const { cri, id, rollback } = pod;
  enter(pod, "lease");
  await step(`failed to create lease for sandbox name ${quote(pod.name)}`, () =>
    cri.stores.leases.create(scopeOf(pod.operation.signal), { id }),
  );
  rollback.add("lease", (signal) => deleteLease(cri, id, signal));

  const config = pod.request.config as NonNullable<RunPodSandboxRequest["config"]>;
  const handler = await step(`unable to get OCI runtime for sandbox ${quote(id)}`, () =>
    handlerOf(cri.config, config, pod.request.runtimeHandler),
  );
  const sandbox = new Sandbox(newMetadata(pod), handler.sandboxer || "podsandbox", {
    state: "unknown",
    pid: 0,
    createdAt: cri.clock.now(),
    exitedAt: 0n,
    exitStatus: 0,
  });
  pod.sandbox = sandbox;
  enter(pod, "record");
  const record = newRecord(sandbox, handler);
  await step("failed to save sandbox metadata", () => cri.stores.sandboxes.create(scopeOf(), record));
  rollback.add("sandbox record", (signal) => cri.stores.sandboxes.delete(scopeOf(signal), id));

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

async function saveMetadata(cri: Cri, sandbox: Sandbox, record: SandboxRecord): Promise<void> {
  record.extensions[RECORD_EXTENSION] = packSandboxMetadata(sandbox.metadata);
  await step(`unable to save sandbox ${quote(sandbox.id)} to sandbox store`, () =>
    cri.stores.sandboxes.update(scopeOf(), record, ["extensions"]),
  );
}

/**
 * Networks and pause container, side by side where the container does not need to know of the networks to start: a pause container has
 * its namespace, and that is enough.
 */
async function attachAndStart(pod: Draft, sandbox: Sandbox, record: SandboxRecord): Promise<void> {
  const { cri, id } = pod;
  const controller = controllerOf(cri, sandbox.sandboxer);
  if (usesHostNetwork(sandbox.metadata.config)) {
    await startController(pod, sandbox, record, controller);
    return;
  }
  enter(pod, "network");
  const attached = attach(pod, sandbox);
  if (sandbox.sandboxer === "podsandbox") {
    const started = startController(pod, sandbox, record, controller);
    await bothOf(attached, started);
  } else {
    await attached;
    await saveMetadata(cri, sandbox, record);
    await startController(pod, sandbox, record, controller);
  }
  enter(pod, "network result");
  await saveMetadata(cri, sandbox, record);
  await step(`unable to save sandbox ${quote(id)}`, () =>
    controller.update(scopeOf(), id, record, ["extensions"]),
  );
}

/** Waits for both also if one fails, so that what is undone is not still being done. @throws the first failure */
async function bothOf(...promises: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

async function attach({ cri, rollback, operation, id }: Draft, sandbox: Sandbox): Promise<void> {
  rollback.add("network", async (signal) => {
    try {
      await tearDownNetwork(cri, sandbox.metadata, signal);
    } catch (error) {
      // Without a result nothing says that there was anything to tear down.
      if (sandbox.metadata.cniResult !== undefined) throw error;
      cri.logger.warn("failed to tear down a network that was not set up", { id, error: messageOf(error) });
    }
  });
  const network = await step(`failed to setup network for sandbox ${quote(id)}`, () =>
    setUpNetwork(cri, sandbox.metadata, operation.signal),
  );
  sandbox.metadata = { ...sandbox.metadata, ...network };
}

async function startController(
  pod: Draft,
  sandbox: Sandbox,
  record: SandboxRecord,
  controller: SandboxController,
): Promise<void> {
  const { cri, id, rollback, operation } = pod;
  const { config, netnsPath } = sandbox.metadata;
  const scope = scopeOf(operation.signal);
  enter(pod, "create");
  rollback.add("sandbox", async (signal) => {
    await controller.stop(scopeOf(signal), id, 0).catch((error: unknown) => {
      if (!isError(error, "NotFound")) throw error;
    });
    await controller.shutdown(scopeOf(signal), id);
  });
  await step(`failed to create sandbox ${quote(id)}`, () =>
    controller.create(scope, {
      sandbox: record,
      rootfs: [],
      options: anyPack(PodSandboxConfigSchema, config),
      netnsPath,
      annotations: config.annotations,
    }),
  );
  enter(pod, "start");
  const started = await step(`failed to start sandbox ${quote(id)}`, () => controller.start(scope, id));
  sandbox.endpoint = { address: started.address, version: started.version };
  const processLabel = started.labels["selinux_label"] ?? "";
  rollback.add("SELinux label", async () => cri.host.selinux?.release(processLabel));
  sandbox.metadata = { ...sandbox.metadata, processLabel };
  sandbox.update({ pid: started.pid, createdAt: nanoseconds(started.createdAt) });
  record.labels = started.labels;
  if (started.spec !== undefined) record.spec = started.spec;
  record.extensions[RECORD_EXTENSION] = packSandboxMetadata(sandbox.metadata);
  await step(`unable to save sandbox ${quote(id)} to sandbox store`, () =>
    cri.stores.sandboxes.update(scopeOf(), record, ["extensions", "spec", "labels"]),
  );
}
