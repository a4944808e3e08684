import { closeSync, openSync, renameSync, rmSync, truncateSync } from "node:fs";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { KeyLocks } from "../lib/key-locks.ts";
import { endOf, runProgram } from "../lib/program.ts";
import { statusAt } from "../linux/at.ts";
import { BunkerdError, fail, messageOf, quote } from "../model/errors.ts";
import { inParent } from "./beneath.ts";

const PREFIX = "X-containerd.mkfs.";
const FILE_MODE = 0o640;
const TIMEOUT_MS = 5 * 60_000;
const UNITS = "kmgtp";

interface Settings {
  readonly sizeBytes: number;
  readonly type: string;
  readonly uuid: string | undefined;
  /** Without those that are for us. */
  readonly options: readonly string[];
}

/** By path: two mounts of one file, in whatever names and namespaces, make it once. */
const making = new KeyLocks();

/**
 * `mkfs/<type>`: makes the file that is the source, with a file system in it, if it is not there: options
 * `X-containerd.mkfs.{size,fs,uuid}` (containerd `core/mount/manager/mkfs.go`). A file that is there holds a whole file system.
 * @throws InvalidArgument, Unimplemented on a source outside `roots`, Unknown with what the program says
 */
export async function makeFileSystem(mount: Mount, roots: readonly string[]): Promise<Mount> {
  const settings = settingsOf(mount.options);
  const { source } = mount;
  try {
    await making.hold([inParent(source, roots, ({ path }) => path)], async () => {
      const path = inParent(source, roots, (place) =>
        statusAt(place.fd, place.name) === undefined ? place.path : undefined,
      );
      if (path !== undefined) await format(path, settings);
    });
  } catch (cause) {
    if (cause instanceof BunkerdError) throw cause;
    throw new BunkerdError("Unknown", `failed format ${quote(source)}: ${messageOf(cause)}`, { cause });
  }
  return { ...mount, options: [...settings.options] };
}

function settingsOf(all: readonly string[]): Settings {
  let [sizeBytes, type, uuid]: [number, string, string | undefined] = [0, "ext4", undefined];
  const options: string[] = [];
  for (const option of all) {
    if (!option.startsWith(PREFIX)) {
      options.push(option);
      continue;
    }
    const [key = "", ...rest] = option.slice(PREFIX.length).split("=");
    const value = rest.join("=");
    if (key === "size") sizeBytes = bytesOf(value);
    else if (key === "fs") type = value;
    else if (key === "uuid") uuid = value;
    else throw fail("InvalidArgument", `unknown mount option ${key}`);
  }
  if (sizeBytes === 0) throw fail("InvalidArgument", "mkfs requires mkfs.size option");
  if (!Object.hasOwn(PROGRAMS, type)) throw fail("InvalidArgument", `unsupported filesystem ${quote(type)}`);
  return { sizeBytes, type, uuid, options };
}

/** As docker/go-units' RAMInBytes: `100MiB`, `1.5g`, `4096`. */
function bytesOf(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text) ?? [];
  if (number === undefined) throw fail("InvalidArgument", `bad option size: invalid size: ${quote(text)}`);
  const power = unit === "" ? 0 : UNITS.indexOf(unit.toLowerCase()) + 1;
  const sizeBytes = Math.floor(Number(number) * 1024 ** power);
  if (!Number.isSafeInteger(sizeBytes))
    throw fail("InvalidArgument", `bad option size: ${quote(text)} is out of range`);
  return sizeBytes;
}

const ext = (uuid: string | undefined): string[] => (uuid === undefined ? [] : ["-U", uuid]);
/** By type: the arguments that set the uuid. */
const PROGRAMS: Readonly<Record<string, (uuid: string | undefined) => string[]>> = {
  ext2: ext,
  ext3: ext,
  ext4: ext,
  xfs: (uuid) => (uuid === undefined ? [] : ["-m", `uuid=${uuid}`]),
};

/** Under another name until it is whole: what a crash leaves is made anew. */
async function format(path: string, { sizeBytes, type, uuid }: Settings): Promise<void> {
  const partial = `${path}.mkfs`;
  rmSync(partial, { force: true });
  closeSync(openSync(partial, "wx", FILE_MODE));
  try {
    truncateSync(partial, sizeBytes);
    const program = `mkfs.${type}`;
    const args = [program, "-q", ...(PROGRAMS[type]?.(uuid) ?? []), partial];
    const ended = await runProgram({ args, env: process.env, timeoutMs: TIMEOUT_MS });
    if (ended.exitCode !== 0) {
      const said = `${Buffer.from(ended.stdout)}${Buffer.from(ended.stderr)}`.trim();
      throw new BunkerdError(
        "Unknown",
        `failed format ${quote(path)}: ${program} failed: ${said}: ${endOf(ended)}`,
      );
    }
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}
