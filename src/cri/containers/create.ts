import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import type { Sandbox_Runtime } from "#gen/containerd/types/sandbox_pb.ts";
import {
  type ContainerConfig,
  ContainerEventType,
  ContainerState,
  type CreateContainerRequest,
  CreateContainerRequestSchema,
  type ContainerMetadata as CriContainerMetadata,
  NamespaceMode,
  type PodSandboxConfig,
  type PodSandboxMetadata,
} from "#gen/runtime/v1/api_pb.ts";
import {
  newContainer,
  withExtension,
  withLabels,
  withRuntime,
  withSandbox,
} from "../../client/new-container.ts";
import { unpackSpec } from "../../client/spec.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { BunkerdError, isError, quote } from "../../model/errors.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { enumName } from "../enums.ts";
import type { LocalImage } from "../images/local-images.ts";
import { ContainerIo } from "../io/container-io.ts";
import {
  holdingPlugins,
  tellContainerCreated,
  undoAdjustments,
  withPluginAdjustments,
} from "../nri/events.ts";
import { containerPaths, sandboxPaths } from "../paths.ts";
import {
  dropLease,
  type NewLease,
  step,
  takeLease,
  underLease,
  undoRecord,
  withCompletedSpec,
  withNewSnapshot,
} from "../records.ts";
import { Rollback } from "../rollback.ts";
import { assertFifos, handlerOf } from "../runtimes.ts";
import { removeFolder } from "../sandboxes/files.ts";
import { newId } from "../sandboxes/run.ts";
import { mappingLabels } from "../sandboxes/user-namespace.ts";
import {
  assertSpecOptions,
  type ContainerSpecInput,
  completeContainerSpec,
  containerSpec,
} from "../spec/container-spec.ts";
import { CONTAINER_EXTENSION, criLabels } from "../spec/labels.ts";
import { imageVolumes, podMounts } from "../spec/pod-mounts.ts";
import { statusResources } from "../spec/resources.ts";
import type { Spec } from "../spec/spec.ts";
import { sendContainerEvent } from "../status-events.ts";
import { Container } from "../store/container.ts";
import { type ContainerMetadata, packContainerMetadata } from "../store/metadata.ts";
import type { Caller, Operation } from "../store/operations.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { NEW_STATUS, StatusFile } from "../store/status-file.ts";
import { mountImages } from "./image-mounts.ts";
import { withCopiedVolumes } from "./image-volumes.ts";
import { signalName } from "./signals.ts";

/** Makes a container in a pod; its id. A request that is under way already is joined. Source of the rules: `internal/cri/server/container_create.go`. */
export async function createContainer(
  cri: Cri,
  request: CreateContainerRequest,
  caller: Caller,
): Promise<string> {
  const { podSandboxId, config, sandboxConfig } = request;
  const sandbox = await step(`failed to find sandbox id ${quote(podSandboxId)}`, () =>
    cri.sandboxes.get(podSandboxId),
  );
  const status = await step("failed to get controller status", () =>
    controllerOf(cri, sandbox.sandboxer).status(scopeOf(caller.signal), sandbox.id, false),
  );
  if (sandbox.status.state !== "ready")
    throw new BunkerdError("Unknown", `sandbox container ${quote(sandbox.id)} is not running`);
  if (config?.metadata === undefined)
    throw new BunkerdError("Unknown", "container config must include metadata");
  if (sandboxConfig?.metadata === undefined)
    throw new BunkerdError("Unknown", "pod sandbox config must include metadata");
  signalName(config.stopSignal);
  const name = containerName(config.metadata, sandboxConfig.metadata);
  const bytes = toBinary(CreateContainerRequestSchema, request);
  return await cri.containerOperations.join(name, bytes, caller, (operation) =>
    create({ cri, sandbox, sandboxPid: status.pid, config, sandboxConfig, name, operation }),
  );
}

/** Unique as long as pods and their containers are. */
function containerName(container: CriContainerMetadata, pod: PodSandboxMetadata): string {
  return [container.name, pod.name, pod.namespace, pod.uid, container.attempt].join("_");
}

/** A container that is being made. */
interface Draft {
  readonly cri: Cri;
  readonly id: string;
  readonly lease: NewLease;
  readonly sandbox: Sandbox;
  readonly sandboxPid: number;
  readonly config: ContainerConfig;
  readonly sandboxConfig: PodSandboxConfig;
  readonly name: string;
  readonly operation: Operation;
}

async function create(request: Omit<Draft, "id" | "lease">): Promise<string> {
  const { cri, name, operation } = request;
  const id = newId();
  const hint = "check if another CreateContainer request is in progress";
  await step(`failed to reserve container name ${quote(name)}; ${hint}`, () =>
    cri.containerNames.reserve(name, id),
  );
  const rollback = new Rollback();
  rollback.add("container name", async () => cri.containerNames.release(id));
  const lease = takeLease(cri.stores, scopeOf(operation.signal), id);
  try {
    await make({ ...request, id, lease }, rollback);
    return id;
  } catch (error) {
    operation.stage = "rollback";
    await rollback.run(cri.logger.with({ id, name }), cri.config.cleanupTimeoutMs);
    throw error;
  } finally {
    void dropLease(cri.stores, scopeOf(), lease, cri.logger);
  }
}

function enter({ operation }: Draft, stage: string): void {
  operation.signal.throwIfAborted();
  operation.stage = stage;
  failpoint(`cri.create.${stage}`);
}

async function make(draft: Draft, rollback: Rollback): Promise<void> {
  const { cri, id, config, sandbox, operation } = draft;
  enter(draft, "image");
  const wanted = config.image?.image ?? "";
  const image = await step(`failed to resolve image ${quote(wanted)}`, () =>
    cri.images.resolve(scopeOf(operation.signal), wanted),
  );
  const paths = containerPaths(cri.folders, id);
  enter(draft, "folders");
  rollback.add("container folders", async () => {
    removeFolder("container root directory", paths.root);
    removeFolder("volatile container root directory", paths.state);
  });
  await step(`failed to create container root directory ${quote(paths.root)}`, () => {
    for (const path of [paths.root, paths.state]) mkdirSync(path, { recursive: true, mode: 0o755 });
  });
  enter(draft, "spec");
  const planned = await plan(draft, image, paths.root);
  rollback.add("SELinux label", async () => cri.host.selinux?.release(planned.metadata.processLabel));
  await assertSpecOptions(planned.input);
  enter(draft, "stdio");
  const io = await step("failed to create container io", () => {
    const { config: podConfig, runtimeHandler } = sandbox.metadata;
    assertFifos(handlerOf(cri.config, podConfig, runtimeHandler), sandbox.endpoint.address);
    const { tty, stdin, stdinOnce } = config;
    return ContainerIo.create({ id, root: paths.state, tty, stdin, stdinOnce }, cri);
  });
  rollback.add("container io", () => io.close());
  enter(draft, "record");
  const container = await holdingPlugins(cri, async () => {
    const spec = await makeRecord(draft, planned, rollback);
    return await keep(draft, planned.metadata, spec, io, paths.root);
  });
  sendContainerEvent(cri, id, sandbox.id, ContainerEventType.CONTAINER_CREATED_EVENT);
  await tellContainerCreated(cri, sandbox, container);
}

/** From here on there is a container. */
async function keep(
  draft: Draft,
  metadata: ContainerMetadata,
  spec: Spec,
  io: ContainerIo,
  root: string,
): Promise<Container> {
  const { cri } = draft;
  const { id } = metadata;
  enter(draft, "status");
  const status = new StatusFile(root, NEW_STATUS);
  await step(`failed to create internal container object for ${quote(id)}`, () =>
    status.save(() => ({ createdAt: cri.clock.now(), resources: statusResources(spec) })),
  );
  const container = new Container(metadata, status, io);
  cri.containers.add(container);
  return container;
}

/** What the record is made of. */
interface Plan {
  readonly id: string;
  readonly image: LocalImage;
  readonly snapshotter: string;
  readonly input: ContainerSpecInput;
  readonly spec: Spec;
  readonly volumes: ContainerConfig["mounts"];
  readonly metadata: ContainerMetadata;
}

async function plan(draft: Draft, image: LocalImage, root: string): Promise<Plan> {
  const { cri, id, sandbox, sandboxConfig, operation } = draft;
  const { runtimeHandler } = sandbox.metadata;
  const runtime = await step("failed to get sandbox runtime", () =>
    handlerOf(cri.config, sandbox.metadata.config, runtimeHandler),
  );
  const handler = cri.handlers.get(runtimeHandler);
  if (handler === undefined)
    throw new BunkerdError("Unknown", `failed to find runtime handler ${quote(runtimeHandler)}`);
  const snapshotter = runtime.snapshotter || cri.config.images.snapshotter;
  const config = await mountImages(
    cri,
    draft.config,
    snapshotter,
    { id: sandbox.id, pid: draft.sandboxPid },
    operation.signal,
  );
  const volumes = cri.config.runtime.ignore_image_defined_volumes
    ? []
    : imageVolumes(config, image.config, root, newId);
  const input: ContainerSpecInput = {
    id,
    sandboxId: sandbox.id,
    sandboxPid: draft.sandboxPid,
    targetPid: await step(
      `failed to generate container ${quote(id)} spec: failed to generate spec opts`,
      () => targetPid(draft),
    ),
    containerName: config.metadata?.name ?? "",
    imageName: config.image?.userSpecifiedImage || (image.references[0] ?? ""),
    config,
    sandboxConfig,
    image: image.config,
    extraMounts: [...podMounts(config, sandboxPaths(cri.folders, sandbox.id)), ...volumes],
    runtime,
    handler,
    sandboxProcessLabel: sandbox.metadata.processLabel,
    settings: cri.config.runtime,
    host: cri.host,
    warn: (message) => cri.logger.warn(message, { id }),
  };
  const { spec, processLabel } = await step(`failed to generate container ${quote(id)} spec`, () =>
    containerSpec(input),
  );
  const metadata = containerMetadata(draft, config, image, processLabel);
  return { id, image, snapshotter, input, spec, volumes, metadata };
}

function containerMetadata(
  { id, sandbox, sandboxConfig: { logDirectory }, name }: Draft,
  config: ContainerConfig,
  image: LocalImage,
  processLabel: string,
): ContainerMetadata {
  return {
    id,
    name,
    sandboxId: sandbox.id,
    config,
    imageRef: image.id,
    imageDigest: image.target.digest,
    imageName: image.references[0] ?? "",
    logPath: logDirectory !== "" && config.logPath !== "" ? join(logDirectory, config.logPath) : "",
    stopSignal: signalName(config.stopSignal) || image.config.stopSignal,
    processLabel,
  };
}

/** Of the container whose processes this one is to see; undefined if it does not ask for that. @throws NotFound, Unknown */
function targetPid({ cri, config, sandbox }: Draft): number | undefined {
  const options = config.linux?.securityContext?.namespaceOptions;
  if (options?.pid !== NamespaceMode.TARGET) return undefined;
  return targetContainer(cri, sandbox.id, options.targetId).status.get().pid;
}

/** The container of the pod that a pid namespace of mode TARGET means. @throws NotFound, Unknown if it does not run there */
export function targetContainer(cri: Cri, sandboxId: string, targetId: string): Container {
  let target: Container;
  try {
    target = cri.containers.get(targetId);
  } catch (error) {
    const code = isError(error, "NotFound") ? "NotFound" : "Unknown";
    throw new BunkerdError(
      code,
      `invalid target container: container ${quote(targetId)} does not exist: not found`,
    );
  }
  const owner = target.metadata.sandboxId;
  if (owner !== sandboxId) {
    const rule = `container ${quote(targetId)} (sandbox ${owner}) does not belong to sandbox ${sandboxId}`;
    throw new BunkerdError("Unknown", `invalid target container: ${rule}`);
  }
  if (target.status.state !== ContainerState.CONTAINER_RUNNING) {
    const state = enumName(ContainerState, target.status.state);
    throw new BunkerdError(
      "Unknown",
      `invalid target container: container ${quote(targetId)} is not running - in state ${state}`,
    );
  }
  return target;
}

/** Under a lease: the snapshot, what is copied from it, the finished spec, the record. Answers that spec. */
async function makeRecord(
  { cri, sandbox, operation, lease }: Draft,
  planned: Plan,
  rollback: Rollback,
): Promise<Spec> {
  const { id, image, snapshotter, input, spec, volumes, metadata } = planned;
  const { config } = input;
  const scope = scopeOf(operation.signal);
  const runtime = await step(`unable to get sandbox ${quote(sandbox.id)} runtime info`, () =>
    runtimeOf(cri, sandbox.id),
  );
  rollback.add("container record", (signal) => undoRecord(cri.stores, scopeOf(signal), id, snapshotter));
  rollback.add("plugins", () => undoAdjustments(cri, sandbox, metadata));
  const users = config.linux?.securityContext?.namespaceOptions?.usernsOptions;
  const record = await step("failed to create containerd container", () =>
    underLease(scope, lease, (leased) =>
      newContainer(cri.stores, leased, id, [
        withNewSnapshot(cri.imagesContext, snapshotter, image, mappingLabels(users)),
        withCopiedVolumes(volumes, cri.logger),
        withCompletedSpec((root) => completeContainerSpec(spec, input, root)),
        withRuntime(runtime?.name ?? "", runtime?.options),
        withLabels(criLabels(config.labels, image.config.labels, "container")),
        withExtension(CONTAINER_EXTENSION, packContainerMetadata(metadata)),
        withSandbox(sandbox.id),
        withPluginAdjustments(cri, sandbox, metadata),
      ]),
    ),
  );
  if (record.spec === undefined) throw new Error("a container was made without a spec");
  return unpackSpec(record.spec) as Spec;
}

/** Of the sandbox; one that containerd 1.x made has only its pause container. @throws NotFound */
async function runtimeOf({ stores }: Cri, sandboxId: string): Promise<Sandbox_Runtime | undefined> {
  try {
    return (await stores.sandboxes.get(scopeOf(), sandboxId)).runtime;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
    const { runtime } = await stores.containers.get(scopeOf(), sandboxId).catch(() => {
      throw error;
    });
    return runtime as Sandbox_Runtime | undefined;
  }
}
