/** Mounts as fstab and containerd write them: a type, a source and options by name. */
import { MountFlag, mount } from "./mount.ts";

interface Option {
  readonly flag: number;
  /** The option takes the flag away. */
  readonly clears?: boolean;
}

const set = (flag: number): Option => ({ flag });
const clear = (flag: number): Option => ({ flag, clears: true });

/** mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS". */
const OPTIONS: ReadonlyMap<string, Option> = new Map([
  ["async", clear(MountFlag.synchronous)],
  ["atime", clear(MountFlag.noAtime)],
  ["bind", set(MountFlag.bind)],
  ["defaults", set(0)],
  ["dev", clear(MountFlag.noDev)],
  ["diratime", clear(MountFlag.noDirAtime)],
  ["dirsync", set(MountFlag.dirSync)],
  ["exec", clear(MountFlag.noExec)],
  ["mand", set(MountFlag.mandatoryLock)],
  ["noatime", set(MountFlag.noAtime)],
  ["nodev", set(MountFlag.noDev)],
  ["nodiratime", set(MountFlag.noDirAtime)],
  ["noexec", set(MountFlag.noExec)],
  ["nomand", clear(MountFlag.mandatoryLock)],
  ["norelatime", clear(MountFlag.relatime)],
  ["nostrictatime", clear(MountFlag.strictAtime)],
  ["nosuid", set(MountFlag.noSuid)],
  ["rbind", set(MountFlag.bind | MountFlag.recursive)],
  ["relatime", set(MountFlag.relatime)],
  ["remount", set(MountFlag.remount)],
  ["ro", set(MountFlag.readOnly)],
  ["rw", clear(MountFlag.readOnly)],
  ["strictatime", set(MountFlag.strictAtime)],
  ["suid", clear(MountFlag.noSuid)],
  ["sync", set(MountFlag.synchronous)],
]);

const PROPAGATION: ReadonlyMap<string, number> = new Map([
  ["private", MountFlag.private],
  ["rprivate", MountFlag.private | MountFlag.recursive],
  ["shared", MountFlag.shared],
  ["rshared", MountFlag.shared | MountFlag.recursive],
  ["slave", MountFlag.slave],
  ["rslave", MountFlag.slave | MountFlag.recursive],
  ["unbindable", MountFlag.unbindable],
  ["runbindable", MountFlag.unbindable | MountFlag.recursive],
]);

export interface ParsedOptions {
  /** Sum of {@link MountFlag}. */
  readonly flags: number;
  /** Each wants a call of its own. */
  readonly propagation: readonly number[];
  /** What is the file system's own, in its order. */
  readonly data: readonly string[];
}

export function parseMountOptions(options: readonly string[]): ParsedOptions {
  let flags = 0;
  const propagation: number[] = [];
  const data: string[] = [];
  for (const option of options) {
    const known = OPTIONS.get(option);
    const change = PROPAGATION.get(option);
    if (known !== undefined) flags = known.clears === true ? flags & ~known.flag : flags | known.flag;
    else if (change !== undefined) propagation.push(change);
    else data.push(option);
  }
  return { flags, propagation, data };
}

export interface NamedMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** @throws ErrnoException; E2BIG if the file system's options do not fit into the kernel's page */
export function mountNamed({ type, source, options }: NamedMount, target: string): void {
  const { flags, propagation, data } = parseMountOptions(options);
  const isBind = (flags & MountFlag.bind) !== 0;
  // A bind mount takes further flags only by a remount.
  const further = flags & ~(MountFlag.bind | MountFlag.recursive);
  mount({ source, target, type, flags: isBind ? flags & ~further : flags, data: data.join(",") });
  for (const change of propagation) mount({ source: "", target, type: "", flags: change, data: "" });
  if (isBind && further !== 0)
    mount({ source, target, type, flags: MountFlag.remount | MountFlag.bind | further, data: "" });
}
