/** What plugins are told of a container's specification: NRI's `FromOCI…` conversions. */

import { create } from "@bufbuild/protobuf";
import {
  type Container,
  ContainerSchema,
  type Hooks,
  HooksSchema,
  IOPrioClass,
  type LinuxContainer,
  LinuxContainerSchema,
  type LinuxResources,
  LinuxResourcesSchema,
  type LinuxScheduler,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  LinuxSchedulerSchema,
  type LinuxSeccomp,
  LinuxSeccompSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { HOOK_POINTS } from "../model/hooks.ts";
import type { Integer, OciLinux, OciResources, OciScheduler, OciSeccomp, OciSpec } from "./oci.ts";

/** A container with what its specification tells; ids, names, labels and states are the caller's to add. */
export function containerOfSpec({
  process,
  mounts = [],
  hooks,
  annotations = {},
  linux,
}: OciSpec): Container {
  const user = process?.user;
  return create(ContainerSchema, {
    annotations: { ...annotations },
    args: [...(process?.args ?? [])],
    env: [...(process?.env ?? [])],
    mounts: mounts.map(({ destination, type = "", source = "", options = [] }) => {
      return { destination, type, source, options: [...options] };
    }),
    ...(hooks === undefined ? {} : { hooks: hooksOf(hooks) }),
    rlimits: (process?.rlimits ?? []).map(({ type, hard, soft }) => ({
      type,
      hard: BigInt(hard),
      soft: BigInt(soft),
    })),
    ...(user && { user: { uid: user.uid, gid: user.gid, additionalGids: [...(user.additionalGids ?? [])] } }),
    linux: linuxOf(linux ?? {}, process),
  });
}

function hooksOf(hooks: NonNullable<OciSpec["hooks"]>): Hooks {
  const lists = HOOK_POINTS.map((point) => [
    point,
    (hooks[point] ?? []).map(({ path, args = [], env = [], timeout }) => ({
      path,
      args: [...args],
      env: [...env],
      ...(timeout === undefined ? {} : { timeout: { value: BigInt(timeout) } }),
    })),
  ]);
  return create(HooksSchema, Object.fromEntries(lists));
}

function linuxOf(linux: OciLinux, process: OciSpec["process"]): LinuxContainer {
  const { namespaces = [], devices = [], resources, intelRdt, seccomp } = linux;
  return create(LinuxContainerSchema, {
    namespaces: namespaces.map(({ type, path = "" }) => ({ type, path })),
    devices: devices.map(({ path, type, major, minor, fileMode, uid, gid }) => ({
      path,
      type,
      major: BigInt(major),
      minor: BigInt(minor),
      ...wrapped("fileMode", fileMode),
      ...wrapped("uid", uid),
      ...wrapped("gid", gid),
    })),
    ...(resources && { resources: resourcesOf(resources) }),
    ...wrapped("oomScoreAdj", big(process?.oomScoreAdj)),
    cgroupsPath: linux.cgroupsPath ?? "",
    ...(process?.ioPriority && {
      ioPriority: {
        class: numberIn(IOPrioClass, process.ioPriority.class),
        priority: process.ioPriority.priority,
      },
    }),
    ...(process?.scheduler && { scheduler: schedulerOf(process.scheduler) }),
    sysctl: { ...linux.sysctl },
    netDevices: Object.fromEntries(
      Object.entries(linux.netDevices ?? {}).map(([host, { name = "" }]) => [host, { name }]),
    ),
    ...(intelRdt && {
      rdt: {
        closId: { value: intelRdt.closID ?? "" },
        schemata: { value: [...(intelRdt.schemata ?? [])] },
        enableMonitoring: { value: intelRdt.enableMonitoring ?? false },
      },
    }),
    ...(seccomp && { seccompPolicy: seccompOf(seccomp) }),
  });
}

export function resourcesOf(resources: OciResources): LinuxResources {
  const { memory, cpu, pids } = resources;
  return create(LinuxResourcesSchema, {
    ...(memory && {
      memory: {
        ...wrapped("limit", big(memory.limit)),
        ...wrapped("reservation", big(memory.reservation)),
        ...wrapped("swap", big(memory.swap)),
        ...wrapped("kernel", big(memory.kernel)),
        ...wrapped("kernelTcp", big(memory.kernelTCP)),
        ...wrapped("swappiness", big(memory.swappiness)),
        ...wrapped("disableOomKiller", memory.disableOOMKiller),
        ...wrapped("useHierarchy", memory.useHierarchy),
      },
    }),
    ...(cpu && {
      cpu: {
        ...wrapped("shares", big(cpu.shares)),
        ...wrapped("quota", big(cpu.quota)),
        ...wrapped("period", big(cpu.period)),
        ...wrapped("realtimeRuntime", big(cpu.realtimeRuntime)),
        ...wrapped("realtimePeriod", big(cpu.realtimePeriod)),
        cpus: cpu.cpus ?? "",
        mems: cpu.mems ?? "",
      },
    }),
    ...(pids && { pids: { limit: BigInt(pids.limit ?? 0) } }),
    hugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limit }) => ({
      pageSize,
      limit: BigInt(limit),
    })),
    devices: (resources.devices ?? []).map(({ allow, type = "", major, minor, access = "" }) => ({
      allow,
      type,
      access,
      ...wrapped("major", big(major)),
      ...wrapped("minor", big(minor)),
    })),
    unified: { ...resources.unified },
  });
}

function schedulerOf({
  policy,
  flags = [],
  nice = 0,
  priority = 0,
  runtime = 0,
  deadline = 0,
  period = 0,
}: OciScheduler): LinuxScheduler {
  return create(LinuxSchedulerSchema, {
    policy: numberIn(LinuxSchedulerPolicy, policy),
    nice,
    priority,
    flags: flags.map((flag) => numberIn(LinuxSchedulerFlag, flag)),
    runtime: BigInt(runtime),
    deadline: BigInt(deadline),
    period: BigInt(period),
  });
}

function seccompOf({ defaultAction, defaultErrnoRet, syscalls = [], ...rest }: OciSeccomp): LinuxSeccomp {
  return create(LinuxSeccompSchema, {
    defaultAction,
    ...wrapped("defaultErrno", defaultErrnoRet),
    architectures: [...(rest.architectures ?? [])],
    flags: [...(rest.flags ?? [])],
    listenerPath: rest.listenerPath ?? "",
    listenerMetadata: rest.listenerMetadata ?? "",
    syscalls: syscalls.map(({ names, action, errnoRet, args = [] }) => ({
      names: [...names],
      action,
      ...wrapped("errnoRet", errnoRet),
      args: args.map(({ index, value, valueTwo = 0, op }) => {
        return { index, value: BigInt(value), valueTwo: BigInt(valueTwo), op };
      }),
    })),
  });
}

/** A member of one of the `Optional…` messages, if there is a value. */
function wrapped<K extends string, T>(key: K, value: T | undefined): { [key in K]?: { value: T } } {
  return value === undefined ? {} : ({ [key]: { value } } as { [key in K]?: { value: T } });
}

function big(value: Integer | undefined): bigint | undefined {
  return value === undefined ? undefined : BigInt(value);
}

/** An enumeration's number by its name; what it does not know is its zero. */
function numberIn<T extends number>(enumeration: Readonly<Record<string, T>>, name: string): T {
  return Object.hasOwn(enumeration, name) ? (enumeration[name] as T) : (0 as T);
}
