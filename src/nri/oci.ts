/** The OCI runtime spec as far as NRI reads and changes it: plain objects as they stand in JSON. Whoever builds specs has more in theirs. */

import type { Hook, HookPoint } from "../model/hooks.ts";

export type Integer = number | bigint;

export interface OciSpec {
  process?: {
    args?: readonly string[];
    env?: readonly string[];
    user?: { uid: number; gid: number; additionalGids?: readonly number[] };
    rlimits?: readonly { readonly type: string; readonly hard: Integer; readonly soft: Integer }[];
    oomScoreAdj?: number;
    ioPriority?: { class: string; priority: number };
    scheduler?: OciScheduler;
  };
  mounts?: readonly OciMount[];
  hooks?: { [point in HookPoint]?: readonly Hook[] };
  annotations?: Record<string, string>;
  linux?: OciLinux;
}

export interface OciMount {
  readonly destination: string;
  readonly type?: string;
  readonly source?: string;
  readonly options?: readonly string[];
}

export interface OciLinux {
  namespaces?: readonly { readonly type: string; readonly path?: string }[];
  devices?: readonly OciDevice[];
  resources?: OciResources;
  cgroupsPath?: string;
  sysctl?: Record<string, string>;
  netDevices?: Record<string, { name?: string }>;
  seccomp?: OciSeccomp;
  intelRdt?: { closID?: string; schemata?: readonly string[]; enableMonitoring?: boolean };
  memoryPolicy?: { mode: string; nodes?: string; flags?: readonly string[] };
  rootfsPropagation?: string;
}

export interface OciDevice {
  readonly path: string;
  readonly type: string;
  readonly major: number;
  readonly minor: number;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

export interface OciResources {
  devices?: readonly {
    readonly allow: boolean;
    readonly type?: string;
    readonly major?: Integer;
    readonly minor?: Integer;
    readonly access?: string;
  }[];
  memory?: {
    limit?: Integer;
    reservation?: Integer;
    swap?: Integer;
    kernel?: Integer;
    kernelTCP?: Integer;
    swappiness?: Integer;
    disableOOMKiller?: boolean;
    useHierarchy?: boolean;
  };
  cpu?: {
    shares?: Integer;
    quota?: Integer;
    period?: Integer;
    realtimeRuntime?: Integer;
    realtimePeriod?: Integer;
    cpus?: string;
    mems?: string;
  };
  pids?: { limit?: Integer };
  hugepageLimits?: readonly { readonly pageSize: string; readonly limit: Integer }[];
  unified?: Record<string, string>;
}

export interface OciScheduler {
  policy: string;
  nice?: number;
  priority?: number;
  flags?: readonly string[];
  runtime?: Integer;
  deadline?: Integer;
  period?: Integer;
}

export interface OciSeccomp {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: readonly string[];
  flags?: readonly string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number;
    readonly args?: readonly {
      readonly index: number;
      readonly value: Integer;
      readonly valueTwo?: Integer;
      readonly op: string;
    }[];
  }[];
}

/** A number where that is exact. */
export function exactInteger(value: bigint): Integer {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
