/** Where a checkpoint's parts are gathered, in the container's own folder: there as long as its task may be paused for it. */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import { ifThere } from "../../lib/if-there.ts";
import { isError, quote, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { containerPaths } from "../paths.ts";
import { isDraft } from "./checkpoint-file.ts";

const MODE = 0o700;
const FILE_MODE = 0o600;
/** CRIU may write on while its folder goes. */
const REMOVAL = { recursive: true, force: true, maxRetries: 5 } as const;

export interface CheckpointFolder {
  readonly path: string;
  /** What goes into the archive. */
  readonly files: string;
  /** CRIU's images, among them. */
  readonly images: string;
  /** Holds where the archive is being written. */
  readonly note: string;
}

function folderOf(cri: Pick<Cri, "folders">, id: string): CheckpointFolder {
  // The reference's name: it removes what it finds there.
  const path = join(containerPaths(cri.folders, id).root, "ctrd-checkpoint");
  const files = join(path, "files");
  return { path, files, images: join(files, "checkpoint"), note: join(path, "draft") };
}

/** Runs `work` on an empty folder, which goes with its end. */
export async function inCheckpointFolder(
  cri: Cri,
  id: string,
  work: (folder: CheckpointFolder) => Promise<void>,
): Promise<void> {
  const folder = folderOf(cri, id);
  await rm(folder.path, REMOVAL);
  for (const path of [folder.path, folder.files, folder.images]) await mkdir(path, { mode: MODE });
  try {
    await work(folder);
  } finally {
    await rm(folder.path, REMOVAL);
  }
}

/** For a daemon that is killed meanwhile. */
export async function noteDraft({ note }: CheckpointFolder, draft: string): Promise<void> {
  await writeFile(note, draft, { mode: FILE_MODE });
}

/** Ends a checkpoint that a daemon which was killed has left half made: the container goes on, and nothing of it stays. */
export async function endCutCheckpoint(cri: Cri, id: string): Promise<void> {
  const folder = folderOf(cri, id);
  if (!existsSync(folder.path)) return;
  cri.logger.warn("ending a checkpoint that was cut off", { id });
  await rm(folder.files, REMOVAL);
  const draft = ifThere(() => readFileSync(folder.note, "utf8")) ?? "";
  if (isDraft(basename(draft))) await rm(draft, { force: true });
  await resumeIfPaused(cri, id);
  await rm(folder.path, REMOVAL);
}

/** A task that has ended is none to resume. */
export async function resumeIfPaused({ tasks }: Cri, id: string): Promise<void> {
  try {
    const { status } = await tasks.get(scopeOf(), { containerId: id, execId: "" });
    if (status === Status.PAUSED) await tasks.resume(scopeOf(), id);
  } catch (error) {
    if (!isError(error, "NotFound")) throw within(`failed to resume container ${quote(id)}`, error);
  }
}
