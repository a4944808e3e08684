import type { RuntimeHandler } from "#gen/runtime/v1/api_pb.ts";
import type { Networks } from "../cni/networks.ts";
import type { CriConfig } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import type { KeyLocks } from "../lib/key-locks.ts";
import type { Lazy } from "../lib/lazily.ts";
import type { Logger } from "../lib/log.ts";
import type { UnderWay } from "../lib/under-way.ts";
import type { ContainerStore } from "../model/containers.ts";
import type { Deprecations } from "../model/deprecations.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { SandboxController, SandboxStore } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import type { SnapshotStore } from "../model/snapshots.ts";
import type { TaskStore } from "../model/tasks.ts";
import type { Nri } from "../nri/nri.ts";
import type { ContainerEvents } from "./events.ts";
import type { ImagesContext } from "./images/context.ts";
import type { LocalImages } from "./images/local-images.ts";
import type { SnapshotUsages } from "./images/snapshot-usages.ts";
import type { CriFolders } from "./paths.ts";
import type { PodSandboxController } from "./sandboxes/pod-controller.ts";
import type { HostFacts } from "./spec/host.ts";
import { K8S_NAMESPACE } from "./spec/names.ts";
import type { CpuRates } from "./stats/cpu-rates.ts";
import type { Container } from "./store/container.ts";
import type { IdTable } from "./store/id-table.ts";
import type { Names } from "./store/names.ts";
import type { Operations } from "./store/operations.ts";
import type { Sandbox } from "./store/sandbox.ts";
import type { StreamingServer } from "./streaming/server.ts";

/** The stores of containerd's own objects that pods are made of. */
export interface CriStores {
  readonly containers: ContainerStore;
  readonly leases: LeaseStore;
  readonly sandboxes: SandboxStore;
  /** By the snapshotter's name. */
  readonly snapshots: ReadonlyMap<string, SnapshotStore>;
}

/** What stats are made of beside the kernel's files. */
export interface StatsSources {
  readonly rates: CpuRates;
  readonly usages: SnapshotUsages;
  /** Where each snapshotter keeps its files, by its name. */
  readonly snapshotterRoots: ReadonlyMap<string, string>;
}

/** What the functions of the CRI layer work on: the settings, the rooms below, and the pods and containers that there are. */
export interface Cri {
  readonly config: CriConfig;
  readonly folders: CriFolders;
  /** The socket that the daemon serves on. */
  readonly address: string;
  /** The PATH that shims are given in place of the daemon's own; empty for none. */
  readonly shimPath: string;
  readonly stores: CriStores;
  readonly tasks: TaskStore;
  readonly host: HostFacts;
  readonly images: LocalImages;
  readonly imagesContext: ImagesContext;
  readonly networks: Networks;
  /** Undefined if it is disabled. */
  readonly nri: Nri | undefined;
  /** By name: `podsandbox`, `shim`. */
  readonly controllers: ReadonlyMap<string, SandboxController>;
  /** The controller called `podsandbox`. */
  readonly pauses: Pick<PodSandboxController, "recorded">;
  /** What runtimes can do, by handler; under no name the default. */
  readonly handlers: ReadonlyMap<string, RuntimeHandler>;
  readonly sandboxes: IdTable<Sandbox>;
  readonly containers: IdTable<Container>;
  readonly sandboxNames: Names;
  readonly containerNames: Names;
  /** RunPodSandbox and CreateContainer under way, by name. */
  readonly sandboxOperations: Operations<string>;
  readonly containerOperations: Operations<string>;
  /** Held by mount point while an image is mounted there. */
  readonly imageMounts: KeyLocks;
  /** By container. */
  readonly checkpoints: UnderWay;
  readonly events: ContainerEvents;
  readonly stats: StatsSources;
  readonly streaming: Lazy<StreamingServer>;
  readonly deprecations: Deprecations;
  /** Aborted when the daemon stops. */
  readonly closing: AbortSignal;
  readonly clock: Clock;
  readonly logger: Logger;
}

export function scopeOf(signal?: AbortSignal): Scope {
  return signal === undefined ? { namespace: K8S_NAMESPACE } : { namespace: K8S_NAMESPACE, signal };
}
