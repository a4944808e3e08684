/** Keeps the pods of a directory running: `bunkerd serve` with `manifests` in config.toml. */

import { type FSWatcher, statSync, watch } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Transport } from "@connectrpc/connect";
import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { criClient } from "../client/cri.ts";
import type { Logger } from "../lib/log.ts";
import { messageOf } from "../model/errors.ts";
import { acceptPod, sameSpec } from "./accept.ts";
import type { CpuManager, RunningContainer } from "./cpu-manager.ts";
import type { PodEvent } from "./events.ts";
import { ManifestReader, type Reading, type WantedPod } from "./manifests.ts";
import type { PodCounters } from "./parts.ts";
import type { Roots } from "./paths.ts";
import { removePod } from "./remove.ts";
import { resizeOnly, resizePod } from "./resize.ts";
import { type RotationLimits, rotateLogs } from "./rotate.ts";
import { PodSession } from "./session.ts";
import { CONTAINER_NAME, POD_UID } from "./spec/labels.ts";
import type { ObservedPod } from "./status.ts";
import {
  type Claim,
  damagedRecords,
  removeLeftovers,
  type StoredPod,
  savePod,
  storedPod,
  storedPods,
  unitOf,
} from "./store.ts";
import type { PodWorker } from "./worker.ts";

export interface NodeModeOptions {
  readonly manifests: string;
  readonly endpoint: string;
  readonly transport: Transport | undefined;
  readonly roots: Roots;
  readonly maxRestartMs: number;
  readonly counters: PodCounters;
  readonly cpuManager?: CpuManager | undefined;
  readonly logs: RotationLimits;
  readonly logger: Logger;
}

/** A look at the directory without a word from inotify. */
const RESCAN_MS = 10_000;
/** Several files that are dropped at once are read at once; one that is being written is read when it is whole. */
const SETTLE_MS = 50;
const RETRY_MS = 1000;
const RECONCILE_MS = 1000;
const ROTATE_MS = 3000;

/** One pod of the directory. What is to be done with it is done one thing after the other. */
interface Slot {
  /** Undefined: to be removed. */
  wanted: WantedPod | undefined;
  running:
    | {
        readonly stored: StoredPod;
        readonly claim: Claim;
        readonly worker: PodWorker;
        readonly ended: Promise<void>;
      }
    | undefined;
  busy: boolean;
  dirty: boolean;
  /** What stands in its way, as it was told last. */
  told: string;
}

function newSlot(): Slot {
  return { wanted: undefined, running: undefined, busy: false, dirty: false, told: "" };
}

export class NodeMode {
  readonly #options: NodeModeOptions;
  readonly #session: PodSession;
  readonly #reader: ManifestReader;
  readonly #slots = new Map<string, Slot>();
  readonly #works = new Set<Promise<void>>();
  readonly #closed = new AbortController();
  #watcher: FSWatcher | undefined;
  /** The directory that is watched: another may come in its place. */
  #watched = "";
  #settling: ReturnType<typeof setTimeout> | undefined;
  #told = "";
  /** The last look at each pod that runs, by its uid. */
  readonly #observed = new Map<string, ObservedPod>();

  private constructor(options: NodeModeOptions, session: PodSession) {
    this.#options = options;
    this.#session = session;
    this.#reader = new ManifestReader(options.manifests);
  }

  /** Waits until the runtime answers, takes over what ran before, and begins. @throws the signal's reason */
  static async open(options: NodeModeOptions, signal: AbortSignal): Promise<NodeMode> {
    const { endpoint, transport, roots, maxRestartMs, counters, cpuManager, logger } = options;
    for (;;) {
      signal.throwIfAborted();
      try {
        const session = await PodSession.open({
          ...{ cri: criClient(endpoint, transport), roots, maxRestartMs, counters, logger },
          ...(cpuManager === undefined ? {} : { lifecycle: cpuManager }),
          onEvent: (event) => logEvent(logger, event),
        });
        const mode = new NodeMode(options, session);
        await mode.#takeOver();
        mode.#begin();
        return mode;
      } catch (error) {
        logger.warn("pods: runtime does not answer", { error: messageOf(error) });
        await delay(RETRY_MS, undefined, { signal });
      }
    }
  }

  /** Pods of the directory that are run now. */
  get size(): number {
    return this.#slots.size;
  }

  /** Leaves the pods as they are: they go on, and the next start takes them over. */
  async close(): Promise<void> {
    this.#closed.abort();
    clearTimeout(this.#settling);
    this.#watcher?.close();
    for (const { running } of this.#slots.values()) running?.worker.leave();
    await Promise.all(this.#works);
    await Promise.all([...this.#slots.values()].map(({ running }) => running?.ended));
    for (const { running } of this.#slots.values()) running?.claim.release();
    await this.#session.close();
  }

  /** CPUs of containers that are gone go back; pods that came from files that are gone since are to be removed. */
  async #takeOver(): Promise<void> {
    const { cpuManager, manifests, roots } = this.#options;
    removeLeftovers(roots);
    for (const damaged of damagedRecords(roots)) this.#options.logger.error(`pods: ${damaged.message}`);
    const own = storedPods(roots).filter(({ source }) => source.startsWith(`${manifests}/`));
    cpuManager?.retain(await this.#runningOf(new Set(own.map(({ pod }) => pod.metadata.uid))));
    for (const { pod } of own) this.#slot(`${pod.metadata.namespace}/${pod.metadata.name}`);
  }

  async #runningOf(uids: ReadonlySet<string>): Promise<RunningContainer[]> {
    const { cri } = this.#session;
    const all = await cri.listContainers({ state: { state: ContainerState.CONTAINER_RUNNING } });
    const own = all.filter(({ labels }) => uids.has(labels[POD_UID] ?? ""));
    return Promise.all(
      own.map(async ({ id, labels }) => ({
        id,
        uid: labels[POD_UID] ?? "",
        name: labels[CONTAINER_NAME] ?? "",
        cpus: (await cri.containerStatus(id)).resources?.linux?.cpusetCpus ?? "",
      })),
    );
  }

  #begin(): void {
    this.#read();
    void this.#repeat(RESCAN_MS, () => this.#read());
    void this.#repeat(ROTATE_MS, () => this.#rotate());
    const { cpuManager } = this.#options;
    if (cpuManager !== undefined)
      void this.#repeat(RECONCILE_MS, () => cpuManager.reconcile(this.#session.cri));
  }

  async #rotate(): Promise<void> {
    for (const observed of this.#observed.values())
      await rotateLogs(this.#session.cri, observed, this.#options.logs);
  }

  async #repeat(everyMs: number, work: () => void | Promise<void>): Promise<void> {
    const { signal } = this.#closed;
    while (!signal.aborted) {
      try {
        await delay(everyMs, undefined, { signal });
        await work();
      } catch (error) {
        if (!signal.aborted) this.#options.logger.error("pods: upkeep failed", { error: messageOf(error) });
      }
    }
  }

  #watch(): void {
    const { dev, ino } = statSync(this.#options.manifests);
    const directory = `${dev} ${ino}`;
    if (this.#watched === directory) return;
    this.#watched = directory;
    this.#watcher?.close();
    try {
      this.#watcher = watch(this.#options.manifests, () => {
        clearTimeout(this.#settling);
        this.#settling = setTimeout(() => this.#read(), SETTLE_MS);
      });
      this.#watcher.on("error", () => this.#watcher?.close());
    } catch (error) {
      this.#options.logger.warn("pods: directory of manifests is not watched", { error: messageOf(error) });
    }
  }

  #read(): void {
    const { manifests, logger } = this.#options;
    let reading: Reading;
    try {
      this.#watch();
      reading = this.#reader.read();
    } catch (error) {
      this.#tellOnce(`${manifests}: ${messageOf(error)}`);
      return;
    }
    const problems = [...reading.broken.values()].join("\n");
    if (problems !== "") this.#tellOnce(problems);
    else this.#told = "";
    for (const key of new Set([...reading.wanted.keys(), ...this.#slots.keys()])) {
      const slot = this.#slot(key);
      const wanted = reading.wanted.get(key);
      const source = (slot.wanted ?? slot.running?.stored)?.source ?? this.#sourceOf(key);
      if (wanted === undefined && source !== undefined && reading.broken.has(source)) continue;
      // Nobody has touched its file: it is as wanted, or somebody is at it.
      if (wanted !== undefined && wanted.file === slot.wanted?.file) continue;
      slot.wanted = wanted;
      this.#work(key, slot);
    }
    logger.debug("pods: manifests read", { pods: reading.wanted.size, broken: reading.broken.size });
  }

  #sourceOf(key: string): string | undefined {
    return storedPods(this.#options.roots).find(
      ({ pod: { metadata } }) => `${metadata.namespace}/${metadata.name}` === key,
    )?.source;
  }

  #tellOnce(problems: string): void {
    if (problems === this.#told) return;
    this.#told = problems;
    for (const problem of problems.split("\n")) this.#options.logger.error(`pods: ${problem}`);
  }

  #slot(key: string): Slot {
    const slot = this.#slots.get(key) ?? newSlot();
    this.#slots.set(key, slot);
    return slot;
  }

  #work(key: string, slot: Slot): void {
    slot.dirty = true;
    if (slot.busy) return;
    slot.busy = true;
    const work = this.#settle(key, slot).finally(() => {
      slot.busy = false;
      this.#works.delete(work);
    });
    this.#works.add(work);
  }

  /** Until the slot is as its file wants it. */
  async #settle(key: string, slot: Slot): Promise<void> {
    const { signal } = this.#closed;
    while (slot.dirty && !signal.aborted) {
      slot.dirty = false;
      try {
        if (!(await this.#step(key, slot))) slot.dirty = true;
        slot.told = "";
      } catch (error) {
        if (signal.aborted) return;
        const message = messageOf(error);
        if (message !== slot.told) this.#options.logger.error(`pods: pod ${key}: ${message}`);
        slot.told = message;
        slot.dirty = true;
        await delay(RETRY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** One step; true when nothing is left to do. */
  async #step(key: string, slot: Slot): Promise<boolean> {
    const { wanted, running } = slot;
    if (running !== undefined && wanted !== undefined) {
      if (sameSpec(running.stored, wanted.file, wanted.manifest)) {
        this.#keepSource(slot, running, wanted.source);
        return true;
      }
      if (resizeOnly(running.stored, wanted)) {
        await this.#resize(slot, wanted);
        return true;
      }
    }
    if (running !== undefined) {
      running.worker.terminate();
      await running.ended;
      await removePod(this.#session.parts, running.stored.pod);
      running.claim.release();
      slot.running = undefined;
      return false;
    }
    if (wanted === undefined) {
      await this.#removeLeft(key);
      this.#slots.delete(key);
      return true;
    }
    await this.#run(slot, wanted);
    return true;
  }

  async #run(slot: Slot, wanted: WantedPod): Promise<void> {
    const { parts } = this.#session;
    const { namespace, source } = wanted;
    const { stored, claim, known } = await acceptPod(parts, wanted.manifest, wanted.file, {
      namespace,
      source,
    });
    const unit = unitOf(parts.roots, stored);
    const { uid } = stored.pod.metadata;
    const worker = this.#session.worker(unit, {
      onState: ({ observed }) => void this.#observed.set(uid, observed),
    });
    const ended = this.#keep(worker, `${namespace}/${wanted.file.metadata.name}`, known).finally(() => {
      this.#session.release(unit);
      this.#observed.delete(uid);
    });
    slot.running = { stored, claim, worker, ended };
  }

  /** A runtime that does not answer for a while does not end the pod. */
  async #keep(worker: PodWorker, key: string, known: ObservedPod | undefined): Promise<void> {
    const { signal } = this.#closed;
    for (let first = known; ; first = undefined) {
      try {
        await worker.run(first);
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#options.logger.error(`pods: pod ${key}: ${messageOf(error)}`);
        await delay(RETRY_MS, undefined, { signal }).catch(() => undefined);
        if (signal.aborted) return;
      }
    }
  }

  /** The pod's record as it is now: `pod debug` adds containers to it. */
  #record(stored: StoredPod): StoredPod {
    const { namespace, name } = stored.pod.metadata;
    return storedPod(this.#options.roots, namespace, name) ?? stored;
  }

  /** A file may have another name now. */
  #keepSource(slot: Slot, running: NonNullable<Slot["running"]>, source: string): void {
    if (running.stored.source === source) return;
    const stored: StoredPod = { ...this.#record(running.stored), source };
    savePod(this.#options.roots, stored);
    slot.running = { ...running, stored };
  }

  async #resize(slot: Slot, wanted: WantedPod): Promise<void> {
    const { running } = slot;
    if (running === undefined) return;
    const record = this.#record(running.stored);
    const { ephemeralContainers } = record.pod.spec;
    const spec = {
      ...wanted.file.spec,
      ...(ephemeralContainers === undefined ? {} : { ephemeralContainers }),
    };
    const stored: StoredPod = { ...record, pod: { ...record.pod, spec } };
    savePod(this.#options.roots, stored);
    await resizePod(this.#session.parts, running.stored.pod, stored.pod);
    running.worker.adopt(stored.pod);
    slot.running = { ...running, stored };
  }

  /** Of a file that went while nobody looked. */
  async #removeLeft(key: string): Promise<void> {
    for (const { pod, source } of storedPods(this.#options.roots)) {
      const own = source.startsWith(`${this.#options.manifests}/`);
      if (own && `${pod.metadata.namespace}/${pod.metadata.name}` === key)
        await removePod(this.#session.parts, pod);
    }
  }
}

function logEvent(logger: Logger, { type, reason, message, pod, namespace, container }: PodEvent): void {
  const fields = { pod: `${namespace}/${pod}`, ...(container === "" ? {} : { container }), reason };
  if (type === "Warning") logger.warn(`pods: ${message}`, fields);
  else logger.info(`pods: ${message}`, fields);
}
