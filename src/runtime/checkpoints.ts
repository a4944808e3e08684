import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { CreateTaskRequest } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { type Descriptor, DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import { type Mount, MountSchema } from "#gen/containerd/types/mount_pb.ts";
import type { ContentStore } from "../model/content.ts";
import { type Differ, LAYER_MEDIA_TYPE } from "../model/diff.ts";
import { BunkerdError, fail, isError, quote } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import type { Shim } from "./shim.ts";
import { checkpointImagePath, createOptions } from "./task-options.ts";

/** Of a checkpoint's images, as an archive, and of the container's spec with it (containerd `core/images/mediatypes.go`). */
const CHECKPOINT = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const CHECKPOINT_CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/** Where checkpoints are kept if nobody names a folder. */
export interface CheckpointStores {
  readonly content: ContentStore;
  readonly differ: Differ;
}

/** Names, on a checkpoint's descriptor, a folder to restore from. */
const RESTORE_FROM_PATH = "RestoreFromPath";

/** What a create asks to be restored from, if anything. */
export interface Restore {
  /** Empty for none that is named. */
  readonly folder: string;
  /** In the content. */
  readonly checkpoint: Descriptor | undefined;
  /** The task runs once it is restored. */
  readonly starts: boolean;
}

/** @throws Unknown and InvalidArgument of options that are not runc's */
export function restoreOf(container: Container, { options, checkpoint }: CreateTaskRequest): Restore {
  const known = createOptions(container, options);
  const named = checkpoint?.annotations[RESTORE_FROM_PATH];
  return { folder: named ?? known?.criuImagePath ?? "", checkpoint, starts: named !== undefined };
}

/** The folder to restore from, empty for none: what is in the content is unpacked into the bundle, as the shim reads it at the start. */
export async function restoreFolder(
  stores: CheckpointStores | undefined,
  scope: Scope,
  { folder, checkpoint }: Restore,
  bundle: string,
): Promise<string> {
  if (folder !== "" || checkpoint === undefined) return folder;
  return await unpackCheckpoint(needed(stores), scope, checkpoint, bundle);
}

/** Writes a checkpoint to the folder that the options name; without one to the content, and answers what is there then. */
export async function takeCheckpoint(
  stores: CheckpointStores | undefined,
  scope: Scope,
  { container, shim, options }: { container: Container; shim: Shim; options: Any | undefined },
): Promise<Descriptor[]> {
  const { id } = container;
  const path = checkpointImagePath(container, options);
  const checkpointTo = (folder: string) =>
    shim.call(
      (task, call) => task.checkpoint({ id, path: folder, ...(options && { options }) }, call),
      scope,
    );
  if (path !== "") {
    await checkpointTo(path);
    return [];
  }
  const given = needed(stores);
  return await inCheckpointFolder(async (folder) => {
    await checkpointTo(folder);
    return await storeCheckpoint(given, scope, folder, container.spec ?? create(AnySchema));
  });
}

/** @throws Unimplemented */
function needed(stores: CheckpointStores | undefined): CheckpointStores {
  if (stores === undefined) throw fail("Unimplemented", "checkpoints in content without a differ");
  return stores;
}

/** Runs `work` on a folder for a checkpoint's images, which goes with its end. */
async function inCheckpointFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(process.env["XDG_RUNTIME_DIR"] || tmpdir(), "ctrd-checkpoint"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Puts the images in the folder and the spec into the content of the scope's namespace. @throws what content's writers throw */
async function storeCheckpoint(
  { content, differ }: CheckpointStores,
  scope: Scope,
  folder: string,
  spec: Any,
): Promise<Descriptor[]> {
  const options = { mediaType: LAYER_MEDIA_TYPE, ref: folder };
  const { digest, size } = await differ.compare(scope, [], [boundTo(folder, "ro")], options);
  const images = create(DescriptorSchema, { mediaType: CHECKPOINT, digest, size });
  return [images, await storeSpec(content, scope, join(folder, "spec"), spec)];
}

async function storeSpec(content: ContentStore, scope: Scope, ref: string, spec: Any): Promise<Descriptor> {
  const bytes = toBinary(AnySchema, spec);
  const writer = await content.writer(scope, { ref, mediaType: CHECKPOINT_CONFIG });
  try {
    await writer.write(bytes);
    await writer.commit({});
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw error;
  } finally {
    await writer.close();
  }
  const found = { mediaType: CHECKPOINT_CONFIG, digest: writer.digest(), size: BigInt(bytes.length) };
  return create(DescriptorSchema, found);
}

/** Unpacks a checkpoint's images to a folder of the bundle; its path. @throws Unknown on another type, NotFound without the blob */
async function unpackCheckpoint(
  { differ }: CheckpointStores,
  scope: Scope,
  checkpoint: Descriptor,
  bundle: string,
): Promise<string> {
  if (checkpoint.mediaType !== CHECKPOINT) {
    throw new BunkerdError("Unknown", `unsupported checkpoint type ${quote(checkpoint.mediaType)}`);
  }
  const folder = join(bundle, "checkpoint");
  await mkdir(folder, { mode: 0o700 });
  const layer = create(DescriptorSchema, { ...checkpoint, mediaType: LAYER_MEDIA_TYPE });
  await differ.apply(scope, layer, [boundTo(folder, "rw")]);
  return folder;
}

function boundTo(source: string, access: "ro" | "rw"): Mount {
  return create(MountSchema, { type: "bind", source, options: ["rbind", access] });
}
