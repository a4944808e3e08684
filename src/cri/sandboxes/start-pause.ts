import { create } from "@bufbuild/protobuf";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { CreateTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import { newContainer, withExtension, withLabels, withRuntime } from "../../client/new-container.ts";
import type { CriConfig, RuntimeHandlerConfig } from "../../config/config.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { bindOwnerOf } from "../../linux/netns.ts";
import { quote } from "../../model/errors.ts";
import type { Labels } from "../../model/labels.ts";
import type { Scope } from "../../model/scope.ts";
import { inheritedLabels } from "../../model/snapshots.ts";
import type { PreparedTask } from "../../model/tasks.ts";
import { scopeOf } from "../cri.ts";
import { ensureImage } from "../images/pull.ts";
import { type SandboxPaths, sandboxPaths } from "../paths.ts";
import {
  dropLease,
  ignoringNotFound,
  snapshotterOf,
  step,
  takeLease,
  underLease,
  undoRecord,
  withCompletedSpec,
  withNewSnapshot,
} from "../records.ts";
import { Rollback } from "../rollback.ts";
import { handlerOf } from "../runtimes.ts";
import { criLabels, SANDBOX_EXTENSION } from "../spec/labels.ts";
import {
  assertSandboxOptions,
  completeSandboxSpec,
  pauseAnnotations,
  type SandboxSpecInput,
  sandboxSpec,
} from "../spec/sandbox-spec.ts";
import { labelledMounts } from "../spec/selinux.ts";
import { packSandboxMetadata, type SandboxMetadata } from "../store/metadata.ts";
import { nanoseconds } from "../time.ts";
import { makeSandboxFolders, removeFolder, setUpSandboxFiles, unmountShm, usesHostIpc } from "./files.ts";
import type { PodControllerDependencies } from "./pod-controller.ts";
import type { PodSandbox, RecordedPause } from "./pod-table.ts";
import { mappingLabels } from "./user-namespace.ts";

export interface StartedPause extends RecordedPause {
  readonly pid: number;
}

const KILL = 9;

/** Begins to start the pod's shim; undefined if that cannot be done before there is a container. */
export function prepareShim(
  { config, tasks }: PodControllerDependencies,
  { id, metadata, runtime }: PodSandbox,
  scope: Scope,
): PreparedTask | undefined {
  let handler: RuntimeHandlerConfig;
  try {
    handler = handlerOf(config, metadata.config, metadata.runtimeHandler);
  } catch {
    // Told when the pod is started.
    return undefined;
  }
  const imageName = pauseImage(config);
  return tasks.prepare(scope, {
    containerId: id,
    runtime: handler.runtime_path || handler.runtime_type,
    options: runtime?.options,
    annotations: pauseAnnotations({ id, config: metadata.config, imageName, runtime: handler }),
  });
}

function pauseImage({ images }: CriConfig): string {
  return images.pinned_images["sandbox"] ?? "";
}

/** Makes the pod's folders, its pause container and its files, and runs it. Undone step by step if it fails; what could not be is logged. */
export async function startPause(
  given: PodControllerDependencies,
  pod: PodSandbox,
  scope: Scope,
): Promise<StartedPause> {
  const rollback = new Rollback();
  try {
    return await start(given, pod, scope, rollback);
  } catch (error) {
    pod.recorded.reject(error);
    await rollback.run(given.logger.with({ id: pod.id }), given.config.cleanupTimeoutMs);
    throw error;
  }
}

async function start(
  given: PodControllerDependencies,
  pod: PodSandbox,
  scope: Scope,
  rollback: Rollback,
): Promise<StartedPause> {
  const { config, folders, stores, imagesContext } = given;
  const { id, metadata } = pod;
  rollback.add("shim", async () => pod.prepared?.discard());
  const name = pauseImage(config);
  const image = await step(`failed to get sandbox image ${quote(name)}`, () =>
    ensureImage(imagesContext, scope, name, metadata.config),
  );
  const handler = await step("failed to get sandbox runtime", () =>
    handlerOf(config, metadata.config, metadata.runtimeHandler),
  );
  const paths = sandboxPaths(folders, id);
  rollback.add("sandbox folders", async () => {
    removeFolder("sandbox root directory", paths.root);
    removeFolder("volatile sandbox root directory", paths.state);
  });
  await step("failed to create sandbox root directory", () => makeSandboxFolders(paths));
  failpoint("cri.sandbox.folders");

  const userNamespacePath = await pinUsers(metadata, paths);
  const input: SandboxSpecInput = {
    id,
    config: metadata.config,
    image: image.config,
    imageName: name,
    netnsPath: metadata.netnsPath,
    userNamespacePath,
    shmPath: paths.shm,
    resolvConfPath: paths.resolvConf,
    runtime: handler,
    settings: config.runtime,
    host: given.host,
  };
  const { spec, processLabel } = await step("failed to generate sandbox container spec", () =>
    sandboxSpec(input),
  );
  rollback.add("SELinux label", async () => given.host.selinux?.release(processLabel));
  assertSandboxOptions(input);
  const labels = criLabels(metadata.config.labels, image.config.labels, "sandbox");
  pod.metadata = { ...metadata, processLabel };
  const snapshotter = handler.snapshotter || config.images.snapshotter;
  rollback.add("pause container", async (signal) => {
    await undoRecord(stores, scopeOf(signal), id, snapshotter);
    pod.hasContainer = false;
  });
  const lease = takeLease(stores, scope, id);
  const record = await step("failed to create containerd container", () =>
    underLease(scope, lease, (leased) =>
      newContainer(stores, leased, id, [
        withNewSnapshot(given.imagesContext, snapshotter, image, snapshotLabels(pod)),
        withCompletedSpec((root) => completeSandboxSpec(spec, input, root)),
        withLabels(labels),
        withExtension(SANDBOX_EXTENSION, packSandboxMetadata(pod.metadata)),
        withRuntime(handler.runtime_type, pod.runtime?.options),
      ]),
    ),
  ).finally(() => void dropLease(stores, scope, lease, given.logger));
  pod.hasContainer = true;
  pod.createdAt = nanoseconds(record.createdAt);
  const recorded: RecordedPause = {
    labels: { oci_runtime_type: handler.runtime_type, selinux_label: processLabel, ...labels },
    spec: record.spec,
  };
  pod.recorded.resolve(recorded);
  failpoint("cri.sandbox.container");

  if (!usesHostIpc(metadata.config)) rollback.add("sandbox files", async () => unmountShm(paths));
  await step("failed to setup sandbox files", () => setUpSandboxFiles(paths, metadata.config));
  failpoint("cri.sandbox.files");

  const pid = await startTask(given, record, handler.runtime_path, scope, rollback);
  pod.pid = pid;
  pod.state = "ready";
  return { pid, ...recorded };
}

/** Binds the user namespace that owns the pod's network: the pause container joins it, for only there it may mount /sys. */
async function pinUsers(
  { config, netnsPath }: SandboxMetadata,
  { userNamespace }: SandboxPaths,
): Promise<string | undefined> {
  const options = config.linux?.securityContext?.namespaceOptions;
  if (options?.usernsOptions?.mode !== NamespaceMode.POD || netnsPath === "") return undefined;
  await step("failed to generate sandbox container spec: failed to pin user namespace", () =>
    bindOwnerOf(netnsPath, userNamespace),
  );
  return userNamespace;
}

/** The labels that tell a snapshotter how to show the layers. */
function snapshotLabels({ metadata: { config } }: PodSandbox): Labels {
  return {
    ...inheritedLabels(config.annotations),
    ...mappingLabels(config.linux?.securityContext?.namespaceOptions?.usernsOptions),
  };
}

async function startTask(
  { stores, tasks }: PodControllerDependencies,
  record: Container,
  runtimePath: string,
  scope: Scope,
  rollback: Rollback,
): Promise<number> {
  const { id, snapshotter, snapshotKey } = record;
  const mounts = await snapshotterOf(stores, snapshotter).mounts(scope, snapshotKey);
  const rootfs = labelledMounts(mounts, record.spec);
  rollback.add("pause task", async (signal) => {
    const undoing = scopeOf(signal);
    await ignoringNotFound(() => tasks.kill(undoing, { containerId: id, execId: "" }, KILL, true));
    await ignoringNotFound(async () => {
      await tasks.wait(undoing, { containerId: id, execId: "" });
      await tasks.delete(undoing, id);
    });
  });
  const request = create(CreateTaskRequestSchema, { containerId: id, rootfs, runtimePath });
  await step("failed to create containerd task", () => tasks.create(scope, request));
  failpoint("cri.sandbox.task");
  const name = { containerId: id, execId: "" };
  return await step(`failed to start sandbox container task ${quote(id)}`, () => tasks.start(scope, name));
}
