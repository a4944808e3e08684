import { lstatSync, readdirSync, type Stats, statSync } from "node:fs";
import { join, posix } from "node:path";
import type { ContainerConfig } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { systemError } from "../system-errors.ts";
import { resolveLink } from "./mounts.ts";
import { type Device, type DeviceRule, type Spec, unsigned32 } from "./spec.ts";

/** Folders of `/dev` that are mounts of their own in every container, and what LXC and udev leave there. */
const SKIPPED: ReadonlySet<string> = new Set(["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"]);

/**
 * The devices of a request, with the rules that allow them; a folder means all below. `ownedByUser`: they belong to the user and
 * group of the request (`device_ownership_from_security_context`). @throws Unknown
 */
export async function applyDevices(
  { linux }: Spec,
  config: ContainerConfig,
  ownedByUser: boolean,
): Promise<void> {
  const context = config.linux?.securityContext;
  const uid = ownedByUser ? unsigned32(context?.runAsUser?.value ?? 0n) : 0;
  const gid = ownedByUser ? unsigned32(context?.runAsGroup?.value ?? 0n) : 0;
  for (const { hostPath, containerPath, permissions } of config.devices) {
    const path = await resolveLink(hostPath).catch((cause: unknown) => {
      throw systemError(cause);
    });
    for (const device of devicesAt(path, containerPath)) {
      const owned = { ...device, ...(uid === 0 ? {} : { uid }), ...(gid === 0 ? {} : { gid }) };
      linux.devices = [...(linux.devices ?? []), owned];
      linux.resources.devices = [...(linux.resources.devices ?? []), ruleFor(device, permissions)];
    }
  }
}

/** All of the host's, for a privileged container. */
export function addHostDevices({ linux }: Spec): void {
  linux.devices = [...(linux.devices ?? []), ...devicesAt("/dev", "")];
}

export function allowAllDevices({ linux }: Spec): void {
  linux.resources.devices = [{ allow: true, access: "rwm" }];
}

function ruleFor({ type, major, minor }: Device, access: string): DeviceRule {
  return { allow: true, type, major, minor, access };
}

/** @throws Unknown if `path` is neither a device nor a folder, or not there */
function devicesAt(path: string, containerPath: string): Device[] {
  try {
    if (statSync(path).isDirectory()) return devicesBelow(path, containerPath);
    const device = deviceAt(path);
    if (device !== undefined) return [containerPath === "" ? device : { ...device, path: containerPath }];
  } catch (cause) {
    throw systemError(cause, "error stating device path: ");
  }
  const where = `get device path: ${quote(path)} containerPath: ${quote(containerPath)}`;
  throw new BunkerdError("Unknown", `${where} error: not a device node`);
}

function devicesBelow(folder: string, containerPath: string): Device[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  entries.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  return entries.flatMap((entry) => {
    const inside = containerPath === "" ? "" : posix.join(containerPath, entry.name);
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return SKIPPED.has(entry.name) ? [] : devicesAt(path, inside);
    if (entry.name === "console") return [];
    const device = deviceIfThere(path);
    if (device === undefined || device.type === "p") return [];
    return [inside === "" ? device : { ...device, path: inside }];
  });
}

function deviceIfThere(path: string): Device | undefined {
  try {
    return deviceAt(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** The node of that very name; undefined for what is no device and no FIFO. @throws ErrnoException */
export function deviceAt(path: string): Device | undefined {
  const status = lstatSync(path);
  const type = typeOf(status);
  if (type === undefined) return undefined;
  return {
    path,
    type,
    ...numbersOf(BigInt(status.rdev)),
    fileMode: status.mode & 0o7777,
    uid: status.uid,
    gid: status.gid,
  };
}

function typeOf(status: Stats): string | undefined {
  if (status.isBlockDevice()) return "b";
  if (status.isCharacterDevice()) return "c";
  return status.isFIFO() ? "p" : undefined;
}

/** makedev(3). */
function numbersOf(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 32n) & 0xfffff000n) | ((device >> 8n) & 0xfffn)),
    minor: Number(((device >> 12n) & 0xffffff00n) | (device & 0xffn)),
  };
}
