/**
 * Whole CPUs for containers of guaranteed pods that ask for whole ones: the kubelet's static policy (`pkg/kubelet/cm/cpumanager`).
 * Everybody else shares what is left.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type ContainerConfig, LinuxContainerResourcesSchema } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import { fail, isError, messageOf, quote } from "../model/errors.ts";
import type { Container } from "./api/container.ts";
import type { Pod } from "./api/pod.ts";
import { milliValueOf } from "./api/quantity.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import { type CpuSet, formatCpuSet, parseCpuSet } from "./cpu-set.ts";
import type { InternalContainerLifecycle } from "./parts.ts";
import { qosClass, requestsOf } from "./spec/qos.ts";

export interface CpuManagerOptions {
  /** The checkpoint. */
  readonly path: string;
  /** CPUs of the machine, each with the core it belongs to. */
  readonly cores: ReadonlyMap<number, string>;
  /** Never given away. */
  readonly reserved: CpuSet;
}

interface Checkpoint {
  readonly policyName: "static";
  readonly defaultCpuSet: string;
  /** By pod uid and container name. */
  readonly entries: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export interface RunningContainer {
  readonly id: string;
  readonly uid: string;
  readonly name: string;
  /** Its set of CPUs; empty: not told. */
  readonly cpus: string;
}

export class CpuManager implements InternalContainerLifecycle {
  readonly #options: CpuManagerOptions;
  readonly #entries = new Map<string, CpuSet>();
  /** Of containers that have been made: their entry. */
  readonly #containers = new Map<string, string>();
  /** Ids of containers that share what is left. */
  readonly #sharing = new Set<string>();
  #changed = false;

  /** Takes over the checkpoint. @throws DataLoss if it cannot be read or does not fit this machine */
  constructor(options: CpuManagerOptions) {
    this.#options = options;
    if (!existsSync(options.path)) return;
    const text = readFileSync(options.path, "utf8");
    try {
      const { entries } = JSON.parse(text) as Checkpoint;
      for (const [uid, containers] of Object.entries(entries)) {
        for (const [name, set] of Object.entries(containers))
          this.#entries.set(`${uid} ${name}`, parseCpuSet(set));
      }
    } catch (error) {
      throw fail(
        "DataLoss",
        `CPU manager's state ${quote(options.path)} (${messageOf(error)}; end the pods that have CPUs for themselves and remove it)`,
        { cause: error },
      );
    }
    const unknown = [...this.#entries.values()]
      .flatMap((set) => [...set])
      .filter((cpu) => !options.cores.has(cpu));
    if (unknown.length > 0)
      throw fail(
        "DataLoss",
        `CPU manager's state ${quote(options.path)} gives away CPU ${unknown[0]}, which this machine has not`,
      );
  }

  /** What nobody has for itself. */
  get shared(): CpuSet {
    const taken = new Set([...this.#entries.values()].flatMap((set) => [...set]));
    return new Set([...this.#options.cores.keys()].filter((cpu) => !taken.has(cpu)));
  }

  exclusive(uid: string, name: string): CpuSet | undefined {
    return this.#entries.get(`${uid} ${name}`);
  }

  preCreateContainer(pod: Pod, container: AnyContainer, config: ContainerConfig): void {
    const wanted = wholeCpus(pod, container);
    const key = `${pod.metadata.uid} ${container.name}`;
    const set = wanted === 0 ? undefined : (this.#entries.get(key) ?? this.#allocate(key, wanted));
    const resources = config.linux?.resources;
    if (resources === undefined) return;
    resources.cpusetCpus = formatCpuSet(set ?? this.shared);
    // Whoever has CPUs for itself is not held back on them.
    if (set !== undefined) resources.cpuQuota = -1n;
  }

  preStartContainer(pod: Pod, container: AnyContainer, containerId: string): void {
    const key = `${pod.metadata.uid} ${container.name}`;
    if (this.#entries.has(key)) this.#containers.set(containerId, key);
    else this.#sharing.add(containerId);
  }

  postStopContainer(containerId: string): void {
    this.#sharing.delete(containerId);
    const key = this.#containers.get(containerId);
    if (key === undefined) return;
    this.#containers.delete(containerId);
    this.#release(key);
  }

  /**
   * After a start: whose containers still run, and on which CPUs as the runtime tells, if it does. What else has CPUs gives them back,
   * and so does what was started without this policy meanwhile; the rest is told what it shares.
   */
  retain(running: readonly RunningContainer[]): void {
    const live = new Set<string>();
    for (const { id, uid, name, cpus } of running) {
      const key = `${uid} ${name}`;
      const set = this.#entries.get(key);
      const holds =
        set !== undefined && (cpus === "" || formatCpuSet(parseCpuSet(cpus)) === formatCpuSet(set));
      if (holds) live.add(key);
      if (holds) this.#containers.set(id, key);
      else this.#sharing.add(id);
    }
    for (const key of [...this.#entries.keys()]) if (!live.has(key)) this.#release(key);
    this.#changed = true;
  }

  /** Tells containers that run which CPUs they share, if that has changed: `reconcileState`. @throws what the runtime answers */
  async reconcile(cri: CriClient): Promise<void> {
    if (!this.#changed) return;
    this.#changed = false;
    const resources = create(LinuxContainerResourcesSchema, { cpusetCpus: formatCpuSet(this.shared) });
    for (const id of this.#sharing) {
      try {
        await cri.updateContainerResources(id, resources);
      } catch (error) {
        // Ended meanwhile.
        if (!isError(error, "NotFound") && !isError(error, "FailedPrecondition")) throw error;
      }
    }
  }

  #allocate(key: string, count: number): CpuSet {
    const free = [...this.shared].filter((cpu) => !this.#options.reserved.has(cpu));
    // The shared set must keep a CPU, or nobody else could run.
    const available = this.#options.reserved.size > 0 ? free.length : free.length - 1;
    if (count > available)
      throw new Error(
        `not enough cpus available to satisfy request: requested=${count}, available=${Math.max(0, available)}`,
      );
    const set = new Set(byCores(free, this.#options.cores, count));
    this.#entries.set(key, set);
    this.#save();
    return set;
  }

  #release(key: string): void {
    if (this.#entries.delete(key)) this.#save();
  }

  #save(): void {
    this.#changed = true;
    const entries: Record<string, Record<string, string>> = {};
    for (const [key, set] of this.#entries) {
      const [uid = "", name = ""] = key.split(" ");
      entries[uid] = { ...entries[uid], [name]: formatCpuSet(set) };
    }
    const checkpoint: Checkpoint = {
      policyName: "static",
      defaultCpuSet: formatCpuSet(this.shared),
      entries,
    };
    const { path } = this.#options;
    mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
    writeFileSync(`${path}.tmp`, JSON.stringify(checkpoint), { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
  }
}

/** How many whole CPUs a container has for itself; 0: none. */
export function wholeCpus({ spec }: Pod, container: AnyContainer): number {
  if (qosClass(spec) !== "Guaranteed") return 0;
  const milli = milliValueOf(requestsOf((container as Partial<Container>).resources)["cpu"] ?? "0");
  return milli % 1000n === 0n ? Number(milli / 1000n) : 0;
}

/** Whole cores first, then what is left of those that are used already. */
function byCores(free: readonly number[], cores: ReadonlyMap<number, string>, count: number): number[] {
  const siblings = Map.groupBy(cores.keys(), (cpu) => cores.get(cpu) ?? "");
  const groups = [...Map.groupBy(free, (cpu) => cores.get(cpu) ?? "")].map(([core, cpus]) => ({
    cpus,
    whole: cpus.length === siblings.get(core)?.length,
  }));
  const chosen: number[] = [];
  for (const { cpus } of groups.filter(({ whole }) => whole)) {
    if (chosen.length + cpus.length <= count) chosen.push(...cpus);
  }
  const rest = [...groups.filter(({ whole }) => !whole), ...groups.filter(({ whole }) => whole)]
    .flatMap(({ cpus }) => cpus)
    .filter((cpu) => !chosen.includes(cpu));
  return [...chosen, ...rest.slice(0, count - chosen.length)];
}

/** CPUs that are on, each with its socket and core. */
export function machineCores(): Map<number, string> {
  const cores = new Map<number, string>();
  for (const cpu of parseCpuSet(readFileSync("/sys/devices/system/cpu/online", "utf8"))) {
    const read = (file: string): string => {
      const path = `/sys/devices/system/cpu/cpu${cpu}/topology/${file}`;
      return existsSync(path) ? readFileSync(path, "utf8").trim() : String(cpu);
    };
    cores.set(cpu, `${read("physical_package_id")}:${read("core_id")}`);
  }
  return cores;
}
