import { create, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { OptionsSchema as RuncOptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import type { Container as ContainerRecord } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { CreateTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { ContainerEventType, ContainerState, NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { enumName } from "../enums.ts";
import type { ContainerIo } from "../io/container-io.ts";
import { holdingPlugins, tellContainerStarted, tellContainerStarts } from "../nri/events.ts";
import { ignoringNotFound, snapshotterOf, step } from "../records.ts";
import { Rollback } from "../rollback.ts";
import { handlerOf } from "../runtimes.ts";
import { labelledMounts } from "../spec/selinux.ts";
import type { IdMapping, Spec } from "../spec/spec.ts";
import { sendContainerEvent } from "../status-events.ts";
import type { Container } from "../store/container.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { targetContainer } from "./create.ts";
import { watchContainer } from "./exit.ts";

/** What ContainerStatus says of a container that could not be started. */
const START_FAILED = { pid: 0, exitCode: 128, reason: "StartError" } as const;
const KILL = 9;

/** Source of the rules: `internal/cri/server/container_start.go`. A container whose start fails has exited: it is not started again. */
export async function startContainer(cri: Cri, containerId: string, signal: AbortSignal): Promise<void> {
  const container = await step(`an error occurred when try to find container ${quote(containerId)}`, () =>
    cri.containers.get(containerId),
  );
  const { id, status } = container;
  const record = await step("get container info", () => cri.stores.containers.get(scopeOf(signal), id));
  await step(`failed to set starting state for container ${quote(id)}`, () => setStarting(container));
  const rollback = new Rollback();
  try {
    await holdingPlugins(cri, () => start(cri, container, record, signal, rollback));
  } catch (error) {
    await rollback.run(cri.logger.with({ id }), cri.config.cleanupTimeoutMs);
    await status
      .save(() => ({ ...START_FAILED, finishedAt: cri.clock.now(), message: messageOf(error) }))
      .catch((failure: unknown) =>
        cri.logger.error("failed to set start failure state", { id, error: messageOf(failure) }),
      );
    container.markStopped();
    throw error;
  } finally {
    status.set({ starting: false });
  }
}

/** @throws Unknown unless it has been created, and nothing else is done with it */
function setStarting({ status }: Container): void {
  const refuse = (words: string): never => {
    throw new BunkerdError("Unknown", words);
  };
  const { state } = status;
  if (state !== ContainerState.CONTAINER_CREATED)
    refuse(`container is in ${enumName(ContainerState, state)} state`);
  const { removing, starting } = status.get();
  if (removing) refuse("container is in removing state, can't be started");
  if (starting) refuse("container is already in starting state");
  status.set({ starting: true });
}

async function start(
  cri: Cri,
  container: Container,
  record: ContainerRecord,
  signal: AbortSignal,
  rollback: Rollback,
): Promise<void> {
  const { id, metadata, status } = container;
  const { sandboxId, config } = metadata;
  const sandbox = await step(`sandbox ${quote(sandboxId)} not found`, () => cri.sandboxes.get(sandboxId));
  if (sandbox.status.state !== "ready")
    throw new BunkerdError("Unknown", `sandbox container ${quote(sandboxId)} is not running`);
  const options = config.linux?.securityContext?.namespaceOptions;
  // It may have ended since this container was created.
  if (options?.pid === NamespaceMode.TARGET) targetContainer(cri, sandboxId, options.targetId);
  const io = container.io;
  if (io === undefined) throw new BunkerdError("Unknown", `container ${quote(id)} has no stdio`);

  await step("failed to create containerd task", async () => {
    await openOutput(cri, container, io);
    failpoint("cri.start.stdio");
    await createTask(cri, { record, sandbox, io }, signal, rollback);
  });
  failpoint("cri.start.task");
  await tellContainerStarts(cri, sandbox, container, signal);
  signal.throwIfAborted();
  const pid = await step(`failed to start containerd task ${quote(id)}`, () =>
    cri.tasks.start(scopeOf(signal), { containerId: id, execId: "" }),
  );
  failpoint("cri.start.started");
  await step(`failed to update container ${quote(id)} state`, () =>
    status.save(() => ({ pid, startedAt: cri.clock.now() })),
  );
  watchContainer(cri, container);
  sendContainerEvent(cri, id, sandboxId, ContainerEventType.CONTAINER_STARTED_EVENT);
  await tellContainerStarted(cri, sandbox, container);
}

/** Begins to read what the container will write. @throws Unknown */
async function openOutput(cri: Cri, { metadata }: Container, io: ContainerIo): Promise<void> {
  await step("failed to create container loggers: failed to create and open log file", () =>
    io.openLog(metadata.logPath, cri.config.runtime.max_container_log_line_size),
  );
  io.start();
}

interface NewTask {
  readonly record: ContainerRecord;
  readonly sandbox: Sandbox;
  readonly io: ContainerIo;
}

async function createTask(
  cri: Cri,
  { record, sandbox, io }: NewTask,
  signal: AbortSignal,
  rollback: Rollback,
): Promise<void> {
  const { tasks, stores } = cri;
  const { id, snapshotter, snapshotKey } = record;
  const { runtime_path: runtimePath } = handlerOf(
    cri.config,
    sandbox.metadata.config,
    sandbox.metadata.runtimeHandler,
  );
  const mounts = await snapshotterOf(stores, snapshotter).mounts(scopeOf(signal), snapshotKey);
  const rootfs = labelledMounts(mounts, record.spec);
  const options = ownedIo(record);
  const { stdin, stdout, stderr, terminal } = io.stdio;
  const request = create(CreateTaskRequestSchema, {
    ...{ containerId: id, rootfs, stdin, stdout, stderr, terminal, runtimePath },
    ...(options === undefined ? {} : { options }),
    taskApiAddress: sandbox.endpoint.address,
    taskApiVersion: sandbox.endpoint.version,
  });
  rollback.add("container task", async (undoing) => {
    const scope = scopeOf(undoing);
    await ignoringNotFound(() => tasks.kill(scope, { containerId: id, execId: "" }, KILL, true));
    await ignoringNotFound(async () => {
      await tasks.wait(scope, { containerId: id, execId: "" });
      await tasks.delete(scope, id);
    });
    await io.drained();
  });
  try {
    await tasks.create(scopeOf(signal), request);
  } finally {
    io.writerCame();
  }
}

/** In a user namespace the pipes belong to the container's user (`container_start_linux.go`, updateContainerIOOwner). */
function ownedIo({ spec, runtime }: ContainerRecord): Any | undefined {
  if (spec === undefined) return undefined;
  const { process, linux } = unpackSpec(spec) as Spec;
  const { uidMappings = [], gidMappings = [] } = linux;
  if (uidMappings.length === 0 && gidMappings.length === 0) return undefined;
  const ioUid = toHost(process.user.uid, uidMappings);
  const ioGid = toHost(process.user.gid, gidMappings);
  const known = runtime?.options;
  if (known === undefined || known.typeUrl !== RuncOptionsSchema.typeName) return undefined;
  const owner = create(RuncOptionsSchema, { ioUid, ioGid });
  // Fields that are set twice count as they stand last (protobuf's encoding).
  const value = Buffer.concat([known.value, toBinary(RuncOptionsSchema, owner)]);
  return create(AnySchema, { typeUrl: known.typeUrl, value: new Uint8Array(value) });
}

/** @throws Unknown for an id that is not mapped */
function toHost(id: number, mappings: readonly IdMapping[]): number {
  const found = mappings.find(({ containerID, size }) => id >= containerID && id < containerID + size);
  if (found === undefined)
    throw new BunkerdError(
      "Unknown",
      `failed to do idmap to get host ID: container ID ${id} cannot be mapped to a host ID`,
    );
  return found.hostID + (id - found.containerID);
}
