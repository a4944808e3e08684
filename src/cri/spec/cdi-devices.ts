import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { getSystemErrorMessage } from "node:util";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { systemReason } from "../system-errors.ts";
import { type CdiEdits, type CdiMount, type CdiNode, type CdiSpec, parseCdiSpec } from "./cdi-spec.ts";
import { deviceAt } from "./devices.ts";
import { depth } from "./paths.ts";
import { addEnvironment } from "./process.ts";
import type { Device, Spec, SpecMount } from "./spec.ts";

/** A file of CDI that is wrong, and what is wrong with it; its devices are missing, others are not. */
export type Report = (message: string) => void;

interface FoundDevice {
  readonly spec: CdiSpec;
  readonly edits: CdiEdits;
  /** The place of its folder: later ones win. */
  readonly priority: number;
}

/**
 * Makes the edits to a container's spec that devices, named `vendor.com/class=name`, and their vendors' specs in `dirs` ask for.
 * @throws Unknown for a device that no spec has, or that two of one folder have
 */
export function injectDevices(
  spec: Spec,
  names: readonly string[],
  dirs: readonly string[],
  report: Report,
): void {
  const found = findDevices(dirs, report);
  const missing = names.filter((name) => !found.has(name));
  if (missing.length > 0) {
    throw new BunkerdError(
      "Unknown",
      `CDI device injection failed: unresolvable CDI devices ${missing.join(", ")}`,
    );
  }
  const specs = new Set<CdiSpec>();
  const edits = names.flatMap((name) => {
    const device = found.get(name);
    if (device === undefined) return [];
    const first = !specs.has(device.spec);
    specs.add(device.spec);
    return first ? [device.spec.edits, device.edits] : [device.edits];
  });
  try {
    applyEdits(spec, edits);
  } catch (cause) {
    const reason = `CDI device injection failed: failed to inject devices: ${systemReason(cause)}`;
    throw new BunkerdError("Unknown", reason, { cause });
  }
}

function findDevices(dirs: readonly string[], report: Report): Map<string, FoundDevice> {
  const devices = new Map<string, FoundDevice>();
  const conflicts = new Set<string>();
  dirs.forEach((folder, priority) => {
    for (const spec of specsIn(folder, report)) {
      for (const [name, edits] of spec.devices) {
        const qualified = `${spec.kind}=${name}`;
        const other = devices.get(qualified);
        if (other?.priority === priority) {
          const paths = `${quote(spec.path)}, ${quote(other.spec.path)}`;
          report(`conflicting device ${quote(qualified)} (specs ${paths})`);
          conflicts.add(qualified);
        } else {
          devices.set(qualified, { spec, edits, priority });
        }
      }
    }
  });
  for (const name of conflicts) devices.delete(name);
  return devices;
}

function specsIn(folder: string, report: Report): CdiSpec[] {
  return namesIn(folder, report).flatMap((name) => {
    const path = join(folder, name);
    try {
      return [parseCdiSpec(readFileSync(path, "utf8"), path)];
    } catch (error) {
      report(`failed to load CDI Spec ${quote(path)}: ${messageOf(error)}`);
      return [];
    }
  });
}

function namesIn(folder: string, report: Report): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory() && /\.(?:json|yaml)$/.test(entry.name))
      .map(({ name }) => name)
      .sort();
  } catch (error) {
    // A folder that nobody has made is the usual state.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") report(messageOf(error));
    return [];
  }
}

function applyEdits(spec: Spec, all: readonly CdiEdits[]): void {
  const { process, linux } = spec;
  for (const { env } of all) for (const variable of env) addEnvironment(process, [variable]);
  for (const node of all.flatMap(({ deviceNodes }) => deviceNodes)) addNode(spec, node);
  for (const { hostInterfaceName, name } of all.flatMap(({ netDevices }) => netDevices)) {
    linux.netDevices = { ...linux.netDevices, [hostInterfaceName]: { name } };
  }
  addMounts(
    spec,
    all.flatMap(({ mounts }) => mounts),
  );
  for (const { hookName, path, args, env, timeout } of all.flatMap(({ hooks }) => hooks)) {
    const hook = { path, args, env, ...(timeout === undefined ? {} : { timeout }) };
    spec.hooks = { ...spec.hooks, [hookName]: [...(spec.hooks?.[hookName] ?? []), hook] };
  }
  const rdt = all.flatMap(({ intelRdt }) => intelRdt ?? []).at(-1);
  if (rdt !== undefined) linux.intelRdt = { ...rdt, schemata: rdt.schemata ?? [] };
  const groups = all.flatMap(({ additionalGids }) => additionalGids).filter((gid) => gid !== 0);
  if (groups.length > 0) {
    process.user.additionalGids = [...new Set([...(process.user.additionalGids ?? []), ...groups])];
  }
}

/** In place of another of that path. What the vendor does not say of it the host's node does. */
function addNode({ process, linux }: Spec, node: CdiNode): void {
  const { permissions } = node;
  const {
    uid = process.user.uid || undefined,
    gid = process.user.gid || undefined,
    ...known
  } = described(node);
  const device = { ...known, ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) };
  linux.devices = [...(linux.devices ?? []).filter(({ path }) => path !== device.path), device];
  const { type, major, minor } = device;
  if (type !== "b" && type !== "c") return;
  const access = permissions === "none" ? "" : permissions || "rwm";
  linux.resources.devices = [...(linux.resources.devices ?? []), { allow: true, type, major, minor, access }];
}

/** @throws Error, ErrnoException if the host has no such device and the vendor does not say enough */
function described({ path, hostPath, type, major, minor, fileMode, uid, gid }: CdiNode): Device {
  const enough = type !== "" && (major !== 0 || type === "p");
  const source = hostPath || path;
  const host = hostDevice(source, enough);
  const mode = fileMode ?? host?.fileMode;
  const owned = {
    ...(mode === undefined ? {} : { fileMode: mode }),
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
  };
  if (enough || host === undefined) return { path, type, major, minor, ...owned };
  if (type !== "" && type !== host.type) {
    const types = `(${type}, ${host.type})`;
    throw new Error(`CDI device (${quote(path)}, ${quote(source)}), host type mismatch ${types}`);
  }
  const numbers =
    host.type === "p" || major !== 0 ? { major, minor } : { major: host.major, minor: host.minor };
  return { path, type: host.type, ...numbers, ...owned };
}

function hostDevice(path: string, optional: boolean): Device | undefined {
  try {
    const device = deviceAt(path);
    if (device !== undefined || optional) return device;
  } catch (error) {
    if (optional) return undefined;
    const reason = getSystemErrorMessage((error as NodeJS.ErrnoException).errno ?? 0);
    throw new Error(`failed to stat CDI host device ${quote(path)}: ${reason}`);
  }
  throw new Error(`failed to stat CDI host device ${quote(path)}: not a device node`);
}

/** In place of others of that path; then all are put in order again. */
function addMounts(spec: Spec, mounts: readonly CdiMount[]): void {
  if (mounts.length === 0) return;
  const shifted = spec.linux.namespaces.some(({ type }) => type === "user");
  for (const { hostPath, containerPath, type, options } of mounts) {
    const mount: SpecMount = { source: hostPath, destination: containerPath, type, options };
    const others = spec.mounts.filter(({ destination }) => destination !== containerPath);
    spec.mounts = [...others, shifted ? withShiftedIds(mount) : mount];
  }
  spec.mounts = spec.mounts.sort((a, b) => depth(a.destination) - depth(b.destination));
}

/** What the host's root owns is the container's root's too. */
function withShiftedIds(mount: SpecMount): SpecMount {
  const options = mount.options ?? [];
  if (options.includes("idmap") || options.includes("ridmap")) return mount;
  const bind = options.findLast((option) => option === "bind" || option === "rbind");
  if (bind === "rbind") return { ...mount, options: [...options, "ridmap"] };
  return bind === "bind" || mount.type === "bind" ? { ...mount, options: [...options, "idmap"] } : mount;
}
