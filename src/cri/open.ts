import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { TaskOOMSchema } from "#gen/containerd/events/task_pb.ts";
import { ImageUpdateSchema } from "#gen/containerd/services/images/v1/image_events_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { openNetworks } from "../cni/networks.ts";
import type { CriConfig } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import { KeyLocks } from "../lib/key-locks.ts";
import type { Logger } from "../lib/log.ts";
import { UnderWay } from "../lib/under-way.ts";
import { makeTopFolder } from "../linux/top-folder.ts";
import type { ContentStore } from "../model/content.ts";
import type { Deprecations } from "../model/deprecations.ts";
import { BunkerdError, isError, messageOf } from "../model/errors.ts";
import type { ImageStore } from "../model/images.ts";
import type { SandboxController } from "../model/sandboxes.ts";
import type { TaskStore } from "../model/tasks.ts";
import type { NriOptions } from "../nri/nri.ts";
import { type CriCalls, callsOf } from "./calls.ts";
import { OUT_OF_MEMORY } from "./containers/exit.ts";
import { type Cri, type CriStores, scopeOf } from "./cri.ts";
import { ContainerEvents } from "./events.ts";
import { readHandlers } from "./handlers.ts";
import { type ImageCalls, imageCallsOf } from "./images/calls.ts";
import type { ImagesContext } from "./images/context.ts";
import { LocalImages } from "./images/local-images.ts";
import { adoptImage, adoptImages } from "./images/managed.ts";
import { SnapshotUsages } from "./images/snapshot-usages.ts";
import { openNri, startNri } from "./nri/open.ts";
import { CONTAINERS, type CriFolders, SANDBOXES } from "./paths.ts";
import { recover } from "./recovery.ts";
import { PodSandboxController } from "./sandboxes/pod-controller.ts";
import { readHostFacts } from "./spec/host.ts";
import { K8S_NAMESPACE } from "./spec/names.ts";
import { openSelinux } from "./spec/selinux.ts";
import { CpuRates } from "./stats/cpu-rates.ts";
import { IdTable } from "./store/id-table.ts";
import { Names } from "./store/names.ts";
import { Operations } from "./store/operations.ts";
import { openStreaming } from "./streaming/open.ts";
import { waitFor } from "./waiting.ts";

/** How long the daemon's end waits for checkpoints. */
const LONGEST_END_MS = 10_000;

export interface CriOptions {
  readonly config: CriConfig;
  readonly folders: CriFolders;
  /** The socket that the daemon serves on. */
  readonly address: string;
  /** The PATH that shims are given in place of the daemon's own; empty for none. */
  readonly shimPath: string;
  /** Undefined if it is disabled. */
  readonly nri: NriOptions | undefined;
}

export interface CriDependencies extends CriStores {
  readonly images: ImageStore;
  readonly content: ContentStore;
  readonly transfers: ImagesContext["transfers"];
  /** Where each snapshotter keeps its files, by its name. */
  readonly snapshotterRoots: ReadonlyMap<string, string>;
  readonly tasks: TaskStore;
  /** Besides `podsandbox`, which is CRI's own: by name. */
  readonly controllers: ReadonlyMap<string, SandboxController>;
  readonly events: {
    subscribe(filters: readonly string[], signal?: AbortSignal): AsyncIterableIterator<Envelope>;
  };
  readonly deprecations: Deprecations;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface OpenCri {
  readonly calls: CriCalls;
  readonly imageCalls: ImageCalls;
  readonly controllers: ReadonlyMap<string, SandboxController>;
  /** Nobody waits for a pod's end or an event any more; calls may still come. */
  stopWaiting(): void;
  /** The pods live on. */
  close(): Promise<void>;
}

/** Starts the CRI layer: reads the machine's facts, takes over the pods that there are, and cleans up after those that are gone. */
export async function openCri(options: CriOptions, dependencies: CriDependencies): Promise<OpenCri> {
  const { config, folders } = options;
  const { tasks, deprecations, clock, logger, content } = dependencies;
  for (const folder of [folders.root, folders.state]) {
    for (const name of [SANDBOXES, CONTAINERS]) makeTopFolder(join(folder, name), 0o755);
  }
  const closing = new AbortController();
  const { runtime } = config;
  const selinux = runtime.enable_selinux ? openSelinux(runtime.selinux_category_range) : undefined;
  const host = readHostFacts(runtime.disable_apparmor, selinux);
  const images = new LocalImages({ images: dependencies.images, content, logger });
  const usages = new SnapshotUsages(config.images.stats_collect_period * 1000, dependencies);
  const imagesContext: ImagesContext = {
    ...dependencies,
    config,
    local: images,
    usages,
  };
  const shared = {
    ...options,
    ...{ host, images, imagesContext, tasks, deprecations, clock, logger, stores: dependencies },
    closing: closing.signal,
  };
  const pods = new PodSandboxController(shared);
  const networks = openNetworks({ config: runtime }, { logger });
  const nri = options.nri && openNri(options.nri, () => cri, logger);
  const parts: Omit<Cri, "streaming"> = {
    ...shared,
    nri,
    networks,
    controllers: new Map([["podsandbox", pods], ...dependencies.controllers]),
    pauses: pods,
    handlers: await readHandlers(shared),
    sandboxes: new IdTable(),
    containers: new IdTable(),
    sandboxNames: new Names(),
    containerNames: new Names(),
    sandboxOperations: new Operations(),
    containerOperations: new Operations(),
    imageMounts: new KeyLocks(),
    checkpoints: new UnderWay(),
    events: new ContainerEvents(),
    stats: { rates: new CpuRates(), usages, snapshotterRoots: dependencies.snapshotterRoots },
  };
  const cri: Cri = { ...parts, streaming: await openStreaming(parts) };
  const stopWaiting = (): void => closing.abort(new BunkerdError("Unavailable", "daemon is stopping"));
  void followEvents(cri, imagesContext, dependencies.events);
  await adoptImages(imagesContext, scopeOf());
  await recover(cri, pods);
  await startNri(cri);
  return {
    calls: callsOf(cri),
    imageCalls: imageCallsOf(imagesContext),
    controllers: cri.controllers,
    stopWaiting,
    async close() {
      stopWaiting();
      await endCheckpoints(cri);
      networks.close();
      await (await cri.streaming.opened)?.close();
      await nri?.close();
      await Promise.all(cri.containers.list().map(({ io }) => io?.release()));
    },
  };
}

/** So that no container stays paused until the next daemon comes; if CRIU takes its time, that one lets it go on. */
async function endCheckpoints({ checkpoints, logger }: Cri): Promise<void> {
  try {
    await waitFor(checkpoints.ended(), AbortSignal.timeout(LONGEST_END_MS));
  } catch (error) {
    logger.warn("a checkpoint has not ended yet", { error: messageOf(error) });
  }
}

/** What others do with images (the name is where it is in each of their events), and what the kernel does with containers. */
async function followEvents(
  cri: Cri,
  images: ImagesContext,
  events: CriDependencies["events"],
): Promise<void> {
  const filters = [`topic=="/tasks/oom"`, `topic~="^/images/"`];
  try {
    for await (const { namespace, topic, event } of events.subscribe(filters, cri.closing)) {
      if (namespace !== K8S_NAMESPACE) continue;
      if (event === undefined) continue;
      if (topic === "/tasks/oom") noteOutOfMemory(cri, fromBinary(TaskOOMSchema, event.value).containerId);
      else await adoptImage(images, scopeOf(), fromBinary(ImageUpdateSchema, event.value).name);
    }
  } catch (error) {
    // The exchange closes before this room does when the daemon stops.
    if (cri.closing.aborted || isError(error, "Unavailable")) return;
    cri.logger.error("CRI hears of no more events", { error: messageOf(error) });
  }
}

function noteOutOfMemory(cri: Cri, id: string): void {
  const container = cri.containers.find(id);
  if (container === undefined || container.status.get().reason === OUT_OF_MEMORY) return;
  container.status
    .save(() => ({ reason: OUT_OF_MEMORY }))
    .catch((error: unknown) => cri.logger.error("failed to note OOM", { id, error: messageOf(error) }));
}
