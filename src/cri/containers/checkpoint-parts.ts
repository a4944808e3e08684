/** What a checkpoint's archive holds; the names are checkpointctl's (`lib/metadata.go`). */
import { statSync } from "node:fs";
import { copyFile, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { CheckpointOptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import type { Container as ContainerRecord } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { CheckpointTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import { ContainerStatusSchema } from "#gen/runtime/v1/api_pb.ts";
import { type ArchiveSink, type Changes, writeChanges } from "../../diff/compare.ts";
import { Workers } from "../../diff/workers.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { formatRfc3339 } from "../../lib/rfc3339.ts";
import { quote } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import type { SnapshotStore } from "../../model/snapshots.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { containerPaths } from "../paths.ts";
import { dropLease, snapshotterOf, step, takeLease, underLease, withoutShiftedIds } from "../records.ts";
import { newId } from "../sandboxes/run.ts";
import type { Container } from "../store/container.ts";
import { goText, toGo } from "../store/go-json.ts";
import { nanoseconds } from "../time.ts";
import { reasonOf } from "../waiting.ts";
import { writeAll } from "./checkpoint-file.ts";
import { type CheckpointFolder, resumeIfPaused } from "./checkpoint-folder.ts";
import { containerStatusOf } from "./status.ts";

const MODE = 0o600;
/** Go's zero time. */
const NEVER = "0001-01-01T00:00:00Z";

/** A checkpoint that is being made. */
export interface Draft {
  readonly cri: Cri;
  readonly container: Container;
  readonly folder: CheckpointFolder;
  readonly signal: AbortSignal;
}

/** Fills the folder's files: the task stands still for its memory and for what it has written to its root file system. */
export async function gather(draft: Draft): Promise<void> {
  const { cri, container } = draft;
  const record = await step("get container info", () => cri.stores.containers.get(scopeOf(), container.id));
  await writeDescriptions(draft, record);
  await standingStill(draft, async () => {
    await dump(draft);
    failpoint("cri.checkpoint.dumped");
    if (draft.signal.aborted) throw reasonOf(draft.signal);
    await writeRootChanges(draft, record);
  });
  await copyLog(draft);
}

/** The files' archive, as the reference's differ makes it of the folder. */
export async function writeArchive({ folder, signal }: Draft, sink: ArchiveSink): Promise<void> {
  const upper = [create(MountSchema, { type: "bind", source: folder.files, options: ["rbind", "ro"] })];
  await write({ lower: [], upper, compression: "none" }, sink, signal);
}

async function write(changes: Changes, sink: ArchiveSink, signal: AbortSignal): Promise<void> {
  try {
    await writeChanges(new Workers(), changes, sink, signal);
  } catch (error) {
    throw signal.aborted ? reasonOf(signal) : error;
  }
}

async function writeDescriptions({ cri, container, folder }: Draft, record: ContainerRecord): Promise<void> {
  const status = await containerStatusOf(cri, container);
  const image = status.image?.image ?? "";
  const config = {
    id: container.id,
    name: container.metadata.name,
    ...(image && { rootfsImage: image }),
    ...(status.imageRef && { rootfsImageRef: status.imageRef }),
    ...(image && { rootfsImageName: image }),
    runtime: record.runtime?.name ?? "",
    createdTime: formatRfc3339(nanoseconds(record.createdAt)),
    checkpointedTime: formatRfc3339(cri.clock.now()),
    restoredTime: NEVER,
    restored: false,
  };
  const put = (name: string, data: string | Uint8Array) =>
    writeFile(join(folder.files, name), data, { mode: MODE });
  await put("config.dump", goText(config));
  await put("status.dump", goText(toGo(ContainerStatusSchema, status)));
  await put("spec.dump", record.spec?.value ?? "");
  const { root } = containerPaths(cri.folders, container.id);
  await copyFile(join(root, "status"), join(folder.files, "status"));
}

/** Runs `work` while the task is paused, unless somebody has paused it before. */
async function standingStill({ cri, container: { id } }: Draft, work: () => Promise<void>): Promise<void> {
  const { status } = await step(`failed to get task for container ${quote(id)}`, () =>
    cri.tasks.get(scopeOf(), { containerId: id, execId: "" }),
  );
  if (status === Status.PAUSED) return await work();
  await step(`checkpointing container ${quote(id)} failed`, () => cri.tasks.pause(scopeOf(), id));
  try {
    failpoint("cri.checkpoint.paused");
    await work();
  } finally {
    await resumeIfPaused(cri, id);
  }
}

/** CRIU's images, its log and its statistics. No caller's end reaches it: half a dump would have to be undone as well. */
async function dump({ cri, container: { id }, folder }: Draft): Promise<void> {
  const options = create(CheckpointOptionsSchema, { workPath: folder.files, imagePath: folder.images });
  const request = create(CheckpointTaskRequestSchema, {
    containerId: id,
    // As containerd names types: without a host.
    options: create(AnySchema, {
      typeUrl: CheckpointOptionsSchema.typeName,
      value: toBinary(CheckpointOptionsSchema, options),
    }),
  });
  await step(`checkpointing container ${quote(id)} failed`, () => cri.tasks.checkpoint(scopeOf(), request));
}

/** What the container has changed in its image, gzipped whatever the name says. Under a lease that a daemon which is killed is known to have left. */
async function writeRootChanges(draft: Draft, { snapshotter, snapshotKey }: ContainerRecord): Promise<void> {
  const { cri } = draft;
  if (snapshotKey === "") return;
  const snapshots = snapshotterOf(cri.stores, snapshotter);
  const lease = takeLease(cri.stores, scopeOf(), newId());
  try {
    await underLease(scopeOf(), lease, (scope) => writeChangesOf(draft, snapshots, scope, snapshotKey));
  } finally {
    await dropLease(cri.stores, scopeOf(), lease, cri.logger);
  }
}

async function writeChangesOf(
  { folder, signal }: Draft,
  snapshots: SnapshotStore,
  scope: Scope,
  key: string,
): Promise<void> {
  const { parent } = await snapshots.stat(scope, key);
  const view = `${key}-parent-view-${newId().slice(0, 8)}`;
  const lower = await snapshots.view(scope, view, parent);
  try {
    const upper = withoutShiftedIds(await snapshots.mounts(scope, key));
    const file = await open(join(folder.files, "rootfs-diff.tar"), "wx", MODE);
    try {
      const sink = { write: (bytes: Uint8Array) => writeAll(file, bytes) };
      await write({ lower, upper, compression: "gzip" }, sink, signal);
    } finally {
      await file.close();
    }
  } finally {
    await snapshots.remove(scope, view);
  }
}

async function copyLog({ container, folder }: Draft): Promise<void> {
  const { logPath } = container.metadata;
  const found = logPath === "" ? undefined : statSync(logPath, { throwIfNoEntry: false });
  // A pipe would keep us waiting.
  if (found?.isFile() === true) await copyFile(logPath, join(folder.files, "container.log"));
}
