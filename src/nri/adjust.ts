/** Changes a container's specification as plugins want it: NRI's `pkg/runtime-tools/generate`. */

import {
  type ContainerAdjustment,
  IOPrioClassSchema,
  type LinuxContainerAdjustment,
  type LinuxRdt,
  type LinuxResources,
  type LinuxScheduler,
  LinuxSchedulerFlagSchema,
  LinuxSchedulerPolicy,
  LinuxSchedulerPolicySchema,
  type LinuxSeccomp,
  type Mount,
  MpolFlagSchema,
  MpolModeSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { setOwn } from "../lib/record.ts";
import { BunkerdError, quote } from "../model/errors.ts";
import { HOOK_POINTS } from "../model/hooks.ts";
import { unmarked } from "./names.ts";
import {
  exactInteger,
  type OciLinux,
  type OciResources,
  type OciScheduler,
  type OciSeccomp,
  type OciSpec,
} from "./oci.ts";

export interface AdjustOptions {
  /** Limits of huge pages are dropped where their controller is not wanted (`disable_hugetlb_controller`). */
  readonly withoutHugepages: boolean;
  /** Adds CDI devices by their names to the spec. @throws NotFound */
  readonly injectCdiDevices: (names: readonly string[]) => Promise<void>;
  /** How the file system that holds a path is propagated: `shared`, `slave`, `private`. */
  readonly propagationOf: (path: string) => string;
}

/** Changes `spec` in place. @throws what `injectCdiDevices` throws, FailedPrecondition, Unimplemented for a block I/O class */
export async function adjustSpec(
  spec: OciSpec,
  adjust: ContainerAdjustment,
  options: AdjustOptions,
): Promise<void> {
  spec.process ??= {};
  spec.linux ??= {};
  const { process, linux } = spec;
  spec.annotations = adjustedMap(spec.annotations, adjust.annotations);
  process.env = adjustedEnv(process.env ?? [], adjust);
  if (adjust.args.length > 0) process.args = adjust.args;
  adjustHooks(spec, adjust);
  if (adjust.CDIDevices.length > 0) await options.injectCdiDevices(adjust.CDIDevices.map(({ name }) => name));
  if (adjust.linux !== undefined) adjustLinux(spec, linux, adjust.linux, options);
  if (adjust.mounts.length > 0) adjustMounts(spec, linux, adjust.mounts, options);
  const limits = adjust.rlimits.map(({ type, hard, soft }) => ({
    type,
    hard: exactInteger(hard),
    soft: exactInteger(soft),
  }));
  if (limits.length > 0) process.rlimits = [...(process.rlimits ?? []), ...limits];
}

function adjustedMap(
  present: Readonly<Record<string, string>> | undefined,
  wanted: Readonly<Record<string, string>>,
): Record<string, string> {
  const adjusted = { ...present };
  const entries = Object.entries(wanted).map(([marked, value]) => ({ ...unmarked(marked), value }));
  for (const { key } of entries.filter(({ removed }) => removed)) delete adjusted[key];
  for (const { key, value } of entries.filter(({ removed }) => !removed)) setOwn(adjusted, key, value);
  return adjusted;
}

/** Variables keep their place; new ones follow. */
function adjustedEnv(present: readonly string[], { env }: ContainerAdjustment): readonly string[] {
  const wanted = new Map(
    env.map(({ key, value }) => [unmarked(key).key, unmarked(key).removed ? undefined : `${key}=${value}`]),
  );
  const kept = present.flatMap((variable) => {
    const key = variable.split("=", 1)[0] ?? "";
    if (!wanted.has(key)) return [variable];
    const replaced = wanted.get(key);
    wanted.delete(key);
    return replaced === undefined ? [] : [replaced];
  });
  return [...kept, ...[...wanted.values()].filter((variable) => variable !== undefined)];
}

function adjustHooks(spec: OciSpec, { hooks }: ContainerAdjustment): void {
  if (hooks === undefined) return;
  for (const point of HOOK_POINTS) {
    if (hooks[point].length === 0) continue;
    const added = hooks[point].map(({ path, args, env, timeout }) => ({
      path,
      ...(args.length === 0 ? {} : { args }),
      ...(env.length === 0 ? {} : { env }),
      ...(timeout === undefined ? {} : { timeout: Number(timeout.value) }),
    }));
    spec.hooks = { ...spec.hooks, [point]: [...(spec.hooks?.[point] ?? []), ...added] };
  }
}

function adjustLinux(
  spec: OciSpec,
  linux: OciLinux,
  adjust: LinuxContainerAdjustment,
  options: AdjustOptions,
): void {
  const { process = {} } = spec;
  adjustDevices(linux, adjust);
  if (adjust.cgroupsPath !== "") linux.cgroupsPath = adjust.cgroupsPath;
  if (adjust.oomScoreAdj !== undefined) process.oomScoreAdj = Number(adjust.oomScoreAdj.value);
  if (adjust.ioPriority !== undefined) {
    const { class: number, priority } = adjust.ioPriority;
    if (number === 0) delete process.ioPriority;
    else process.ioPriority = { class: IOPrioClassSchema.value[number]?.name ?? String(number), priority };
  }
  if (adjust.scheduler !== undefined) {
    if (adjust.scheduler.policy === LinuxSchedulerPolicy.SCHED_NONE) delete process.scheduler;
    else process.scheduler = schedulerOf(adjust.scheduler);
  }
  if (adjust.seccompPolicy !== undefined) linux.seccomp = seccompOf(adjust.seccompPolicy);
  for (const { type: marked, path } of adjust.namespaces) {
    const { key: type, removed } = unmarked(marked);
    const others = (linux.namespaces ?? []).filter((namespace) => namespace.type !== type);
    linux.namespaces = removed ? others : [...others, { type, ...(path === "" ? {} : { path }) }];
  }
  if (Object.keys(adjust.sysctl).length > 0) linux.sysctl = adjustedMap(linux.sysctl, adjust.sysctl);
  adjustNetDevices(linux, adjust);
  if (adjust.memoryPolicy !== undefined) {
    const { mode, nodes, flags } = adjust.memoryPolicy;
    linux.memoryPolicy = {
      mode: MpolModeSchema.value[mode]?.name ?? String(mode),
      ...(nodes === "" ? {} : { nodes }),
      ...(flags.length === 0
        ? {}
        : { flags: flags.map((flag) => MpolFlagSchema.value[flag]?.name ?? String(flag)) }),
    };
  }
  if (adjust.resources !== undefined) adjustResources(linux, adjust.resources, options);
  if (adjust.rdt !== undefined) adjustRdt(linux, adjust.rdt);
}

function adjustDevices(linux: OciLinux, { devices }: LinuxContainerAdjustment): void {
  for (const device of devices) {
    const { key: path, removed } = unmarked(device.path);
    linux.devices = (linux.devices ?? []).filter((other) => other.path !== path);
    if (removed) continue;
    const { type, fileMode, uid, gid } = device;
    const [major, minor] = [Number(device.major), Number(device.minor)];
    linux.devices = [
      ...linux.devices,
      {
        ...{ path, type, major, minor },
        ...(fileMode === undefined ? {} : { fileMode: fileMode.value }),
        ...(uid === undefined ? {} : { uid: uid.value }),
        ...(gid === undefined ? {} : { gid: gid.value }),
      },
    ];
    const rule = { allow: true, type, major, minor, access: type === "b" ? "rwm" : "rw" };
    linux.resources = { ...linux.resources, devices: [...(linux.resources?.devices ?? []), rule] };
  }
}

function adjustNetDevices(linux: OciLinux, { netDevices }: LinuxContainerAdjustment): void {
  const entries = Object.entries(netDevices).map(([marked, device]) => ({ ...unmarked(marked), device }));
  if (entries.length === 0) return;
  const adjusted = { ...linux.netDevices };
  for (const { key } of entries.filter(({ removed }) => removed)) delete adjusted[key];
  for (const { key, device } of entries.filter(({ removed }) => !removed))
    setOwn(adjusted, key, device.name === "" ? {} : { name: device.name });
  linux.netDevices = adjusted;
}

function adjustResources(linux: OciLinux, wanted: LinuxResources, { withoutHugepages }: AdjustOptions): void {
  const resources: OciResources = { ...linux.resources };
  const { cpu, memory, pids } = wanted;
  if (cpu !== undefined) {
    resources.cpu = { ...resources.cpu };
    for (const key of ["shares", "quota", "period", "realtimeRuntime", "realtimePeriod"] as const)
      if (cpu[key] !== undefined) resources.cpu[key] = exactInteger(cpu[key].value);
    for (const key of ["cpus", "mems"] as const) if (cpu[key] !== "") resources.cpu[key] = cpu[key];
  }
  const limit = memory?.limit?.value ?? 0n;
  // Swap would be on top of it otherwise. Other members are what the reference leaves out as well.
  if (limit !== 0n)
    resources.memory = { ...resources.memory, limit: exactInteger(limit), swap: exactInteger(limit) };
  for (const { pageSize, limit: bytes } of wanted.hugepageLimits) {
    const others = (resources.hugepageLimits ?? []).filter((other) => other.pageSize !== pageSize);
    resources.hugepageLimits = [...others, { pageSize, limit: exactInteger(bytes) }];
  }
  if (Object.keys(wanted.unified).length > 0) resources.unified = { ...resources.unified, ...wanted.unified };
  // Less than 0 is no limit.
  if (pids !== undefined)
    resources.pids = pids.limit < 0n ? (resources.pids ?? {}) : { limit: exactInteger(pids.limit) };
  if (wanted.devices.length > 0) {
    const rules = wanted.devices.map(({ allow, type, major, minor, access }) => ({
      allow,
      ...(type === "" ? {} : { type }),
      ...(major === undefined ? {} : { major: exactInteger(major.value) }),
      ...(minor === undefined ? {} : { minor: exactInteger(minor.value) }),
      ...(access === "" ? {} : { access }),
    }));
    resources.devices = [...(resources.devices ?? []), ...rules];
  }
  if (withoutHugepages) delete resources.hugepageLimits;
  linux.resources = resources;
  const blockIo = wanted.blockioClass?.value ?? "";
  if (blockIo !== "")
    throw new BunkerdError(
      "Unimplemented",
      `failed to adjust BlockIO class in OCI Spec: class ${quote(blockIo)}`,
    );
  if (wanted.rdtClass !== undefined) {
    if (wanted.rdtClass.value === "") delete linux.intelRdt;
    else linux.intelRdt = { closID: wanted.rdtClass.value };
  }
}

function adjustRdt(linux: OciLinux, { remove, closId, schemata, enableMonitoring }: LinuxRdt): void {
  if (remove) delete linux.intelRdt;
  if (closId === undefined && schemata === undefined && enableMonitoring === undefined) return;
  linux.intelRdt = {
    ...linux.intelRdt,
    ...(closId === undefined ? {} : { closID: closId.value }),
    ...(schemata === undefined ? {} : { schemata: schemata.value }),
    ...(enableMonitoring === undefined ? {} : { enableMonitoring: enableMonitoring.value }),
  };
}

function adjustMounts(
  spec: OciSpec,
  linux: OciLinux,
  wanted: readonly Mount[],
  options: AdjustOptions,
): void {
  for (const { destination: marked, type, source, options: mountOptions } of wanted) {
    const { key: destination, removed } = unmarked(marked);
    spec.mounts = (spec.mounts ?? []).filter((mount) => mount.destination !== destination);
    if (removed) continue;
    adjustPropagation(linux, source, mountOptions, options);
    spec.mounts = [
      ...spec.mounts,
      {
        destination,
        ...(type === "" ? {} : { type }),
        ...(source === "" ? {} : { source }),
        ...(mountOptions.length === 0 ? {} : { options: mountOptions }),
      },
    ];
  }
  // Those above come before those below.
  const depth = (path: string): number => path.split("/").filter((part) => part !== "").length;
  spec.mounts = (spec.mounts ?? []).toSorted(
    (a, b) => depth(a.destination) - depth(b.destination) || (a.destination < b.destination ? -1 : 1),
  );
}

/** Mounts come into the container, or out of it, only if its root and the source's file system let them. @throws FailedPrecondition */
function adjustPropagation(
  linux: OciLinux,
  source: string,
  mountOptions: readonly string[],
  { propagationOf }: AdjustOptions,
): void {
  const wanted = mountOptions.findLast(
    (option) => option === "rshared" || option === "rslave" || option === "rprivate",
  );
  if (wanted !== "rshared" && wanted !== "rslave") return;
  const found = propagationOf(source);
  if (found !== "shared" && !(wanted === "rslave" && found === "slave")) {
    const words = `failed to adjust mounts in OCI Spec: mount ${quote(source)} is ${found}, ${wanted} wants it shared`;
    throw new BunkerdError("FailedPrecondition", words);
  }
  if (wanted === "rshared") linux.rootfsPropagation = "rshared";
  else if (linux.rootfsPropagation !== "rshared") linux.rootfsPropagation = "rslave";
}

function schedulerOf({
  policy,
  nice,
  priority,
  flags,
  runtime,
  deadline,
  period,
}: LinuxScheduler): OciScheduler {
  return {
    policy: LinuxSchedulerPolicySchema.value[policy]?.name ?? String(policy),
    ...(nice === 0 ? {} : { nice }),
    ...(priority === 0 ? {} : { priority }),
    ...(flags.length === 0
      ? {}
      : { flags: flags.map((flag) => LinuxSchedulerFlagSchema.value[flag]?.name ?? String(flag)) }),
    ...(runtime === 0n ? {} : { runtime: exactInteger(runtime) }),
    ...(deadline === 0n ? {} : { deadline: exactInteger(deadline) }),
    ...(period === 0n ? {} : { period: exactInteger(period) }),
  };
}

function seccompOf({
  defaultAction,
  defaultErrno,
  architectures,
  flags,
  listenerPath,
  listenerMetadata,
  syscalls,
}: LinuxSeccomp): OciSeccomp {
  return {
    defaultAction,
    ...(defaultErrno === undefined ? {} : { defaultErrnoRet: defaultErrno.value }),
    ...(architectures.length === 0 ? {} : { architectures }),
    ...(flags.length === 0 ? {} : { flags }),
    ...(listenerPath === "" ? {} : { listenerPath }),
    ...(listenerMetadata === "" ? {} : { listenerMetadata }),
    syscalls: syscalls.map(({ names, action, errnoRet, args }) => ({
      names,
      action,
      ...(errnoRet === undefined ? {} : { errnoRet: errnoRet.value }),
      ...(args.length === 0
        ? {}
        : {
            args: args.map(({ index, value, valueTwo, op }) => ({
              index,
              value: exactInteger(value),
              ...(valueTwo === 0n ? {} : { valueTwo: exactInteger(valueTwo) }),
              op,
            })),
          }),
    })),
  };
}
