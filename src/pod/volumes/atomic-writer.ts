/**
 * Writes a volume's files so that a reader sees all of the old or all of the new ones: a folder with the time as its name, `..data`
 * pointing at it, and a link for each name at the top (`pkg/volume/util/atomic_writer.go`).
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Payload } from "./payload.ts";

const DATA = "..data";
/** `..2026_01_31_23_59_59.` and what makes it unique. */
const OWN_NAME = /^\.\.[0-9_]+\.[0-9A-Za-z]+$/;

/** @param gid owner of the files, readable for it, if the pod has an fsGroup */
export function writePayload(folder: string, payload: Payload, gid: number | undefined): void {
  const current = currentFolder(folder);
  if (current !== undefined && holds(join(folder, current), payload, gid)) return;
  const stamp = `..${new Date().toISOString().replaceAll(/[-:T]/g, "_").replace(/\..*/, "")}.`;
  const fresh = mkdtempSync(join(folder, stamp));
  chmodSync(fresh, 0o755);
  for (const [path, { data, mode }] of payload) {
    const file = join(fresh, path);
    mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
    writeFileSync(file, data);
    if (gid !== undefined) chownSync(file, -1, gid);
    chmodSync(file, modeFor(mode, gid));
  }
  const link = join(folder, "..data_tmp");
  rmSync(link, { force: true });
  symlinkSync(fresh.slice(folder.length + 1), link);
  renameSync(link, join(folder, DATA));
  linkNames(folder, payload);
  if (current !== undefined) rmSync(join(folder, current), { recursive: true, force: true });
}

function modeFor(mode: number, gid: number | undefined): number {
  return gid === undefined ? mode : mode | 0o440;
}

function linkNames(folder: string, payload: Payload): void {
  const names = new Set([...payload.keys()].map((path) => path.split("/")[0] ?? path));
  for (const name of names) {
    if (!existsLink(join(folder, name))) symlinkSync(join(DATA, name), join(folder, name));
  }
  for (const name of readdirSync(folder)) {
    if (!name.startsWith("..") && !names.has(name)) rmSync(join(folder, name), { force: true });
  }
}

function existsLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Name of the folder with the files that are shown. A link that is not ours is none: what it points to is not ours to remove. */
function currentFolder(folder: string): string | undefined {
  const link = join(folder, DATA);
  if (lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return undefined;
  const name = readlinkSync(link);
  return OWN_NAME.test(name) ? name : undefined;
}

/** True if the folder has these files, with their modes, and no others. */
function holds(folder: string, payload: Payload, gid: number | undefined): boolean {
  if (!existsSync(folder)) return false;
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    lstatSync(join(folder, name)).isFile(),
  );
  if (files.length !== payload.size) return false;
  return files.every((name) => {
    const wanted = payload.get(name);
    const mode = lstatSync(join(folder, name)).mode & 0o777;
    return (
      wanted !== undefined &&
      mode === (modeFor(wanted.mode, gid) & 0o777) &&
      Buffer.from(wanted.data).equals(readFileSync(join(folder, name)))
    );
  });
}
