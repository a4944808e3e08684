/**
 * What the plugins of one event want, put together: the later sees what the earlier have changed, two that change the same are a failure
 * (NRI's `pkg/adaptation/result.go`).
 */
import { clone, create } from "@bufbuild/protobuf";
import {
  type Container,
  type ContainerAdjustment,
  ContainerAdjustmentSchema,
  type ContainerEviction,
  type ContainerUpdate,
  ContainerUpdateSchema,
  Field,
  HooksSchema,
  type LinuxContainer,
  type LinuxContainerAdjustment,
  LinuxContainerAdjustmentSchema,
  LinuxContainerSchema,
  LinuxContainerUpdateSchema,
  type LinuxRdt,
  LinuxRdtSchema,
  type LinuxResources,
  LinuxResourcesSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { ownValue, setOwn } from "../lib/record.ts";
import { BunkerdError, quote } from "../model/errors.ts";
import { HOOK_POINTS } from "../model/hooks.ts";
import { unmarked } from "./names.ts";
import { Owners } from "./owners.ts";
import { mergeResources } from "./resources.ts";

/** Of one container that is being made. */
export class CreationMerge {
  readonly adjust: ContainerAdjustment = create(ContainerAdjustmentSchema);
  readonly updates = new UpdateMerge();
  readonly evictions: ContainerEviction[] = [];
  readonly #container: Container;
  readonly #owners = new Owners();

  /** @param container as the next plugin is to see it: changed by each {@link apply} */
  constructor(container: Container) {
    this.#container = container;
  }

  get owners(): Owners {
    return this.#owners;
  }

  /** @throws FailedPrecondition if another plugin has changed the same */
  apply(adjust: ContainerAdjustment | undefined, plugin: string): void {
    if (adjust === undefined) return;
    const { id } = this.#container;
    this.#map(
      adjust.annotations,
      this.#container.annotations,
      this.adjust.annotations,
      Field.Annotations,
      plugin,
    );
    this.#list(adjust.mounts, [this.#container, "mounts"], this.adjust.mounts, Field.Mounts, plugin);
    this.#env(adjust, plugin);
    this.#args(adjust.args, plugin);
    this.#hooks(adjust, plugin);
    if (adjust.linux !== undefined) this.#linux(adjust.linux, plugin);
    for (const limit of adjust.rlimits) {
      this.#owners.claim(id, Field.Rlimits, plugin, limit.type);
      this.#container.rlimits.push(limit);
      this.adjust.rlimits.push(limit);
    }
    for (const device of adjust.CDIDevices) {
      this.#owners.claim(id, Field.CdiDevices, plugin, device.name);
      this.adjust.CDIDevices.push(device);
    }
  }

  /** @throws FailedPrecondition if it updates the container that is being made */
  applyUpdates(updates: readonly ContainerUpdate[], plugin: string): void {
    const { id } = this.#container;
    if (updates.some(({ containerId }) => containerId === id)) {
      const words = `plugin ${quote(plugin)} asked update of ${quote(id)} during creation`;
      throw new BunkerdError("FailedPrecondition", words);
    }
    this.updates.apply(updates, plugin);
  }

  #linux(linux: LinuxContainerAdjustment, plugin: string): void {
    const { id } = this.#container;
    const container = this.#linuxContainer();
    this.adjust.linux ??= create(LinuxContainerAdjustmentSchema);
    const merged = this.adjust.linux;
    this.#list(linux.devices, [container, "devices"], merged.devices, Field.Devices, plugin);
    if (linux.resources !== undefined) {
      merged.resources ??= create(LinuxResourcesSchema);
      container.resources ??= create(LinuxResourcesSchema);
      const claim = (field: Field, entry?: string): void => this.#owners.claim(id, field, plugin, entry);
      mergeResources([merged.resources, container.resources], linux.resources, claim);
    }
    if (linux.cgroupsPath !== "") {
      this.#owners.claim(id, Field.CgroupsPath, plugin);
      merged.cgroupsPath = linux.cgroupsPath;
      container.cgroupsPath = linux.cgroupsPath;
    }
    for (const [key, field] of SINGLE) {
      if (linux[key] === undefined) continue;
      this.#owners.claim(id, field, plugin);
      Object.assign(merged, { [key]: linux[key] });
      // Memory policy is no member of containers: it can be set, not seen.
      if (key !== "memoryPolicy") Object.assign(container, { [key]: linux[key] });
    }
    this.#namespaces(linux, container, merged, plugin);
    this.#map(linux.sysctl, container.sysctl, merged.sysctl, Field.Sysctl, plugin);
    this.#map(linux.netDevices, container.netDevices, merged.netDevices, Field.LinuxNetDevices, plugin);
    if (linux.rdt !== undefined) this.#rdt(linux.rdt, merged, plugin);
  }

  #linuxContainer(): LinuxContainer {
    this.#container.linux ??= create(LinuxContainerSchema);
    return this.#container.linux;
  }

  /** Maps whose keys may be marked: `-a` takes away, `-a` and `a` replace what another plugin has set. */
  #map<T>(
    wanted: Readonly<Record<string, T>>,
    seen: Record<string, T>,
    merged: Record<string, T>,
    field: Field,
    plugin: string,
  ): void {
    const { id } = this.#container;
    for (const [marked, value] of Object.entries(wanted)) {
      const { key, removed } = unmarked(marked);
      if (!removed) continue;
      if (ownValue(wanted, key) !== undefined || ownValue(merged, key) !== undefined)
        this.#owners.clear(id, field, plugin, key);
      delete merged[key];
      delete seen[key];
      setOwn(merged, marked, value);
    }
    for (const [key, value] of Object.entries(wanted)) {
      if (unmarked(key).removed) continue;
      this.#owners.claim(id, field, plugin, key);
      setOwn(seen, key, value);
      setOwn(merged, key, value);
    }
  }

  /** Lists of mounts and devices, told apart by where they are in the container. */
  #list<T extends { destination: string } | { path: string }, K extends string>(
    wanted: readonly T[],
    [owner, member]: [{ [key in K]: T[] }, K],
    merged: T[],
    field: Field,
    plugin: string,
  ): void {
    const { id } = this.#container;
    const placeOf = (one: T): string => ("destination" in one ? one.destination : one.path);
    const removals = wanted.filter((one) => unmarked(placeOf(one)).removed);
    const additions = wanted.filter((one) => !unmarked(placeOf(one)).removed);
    const removed = new Set(removals.map((one) => unmarked(placeOf(one)).key));
    const added = new Set(additions.map(placeOf));
    for (const one of merged.filter((other) => removed.has(placeOf(other)))) {
      merged.splice(merged.indexOf(one), 1);
      this.#owners.clear(id, field, plugin, placeOf(one));
    }
    for (const one of additions) this.#owners.claim(id, field, plugin, placeOf(one));
    merged.push(...removals.filter((one) => !added.has(unmarked(placeOf(one)).key)), ...additions);
    const kept = owner[member].filter((one) => !removed.has(placeOf(one)) && !added.has(placeOf(one)));
    owner[member] = [...kept, ...additions];
  }

  #env({ env: wanted }: ContainerAdjustment, plugin: string): void {
    const { id } = this.#container;
    const removals = wanted.filter(({ key }) => unmarked(key).removed);
    const additions = wanted.filter(({ key }) => !unmarked(key).removed);
    const removed = new Set(removals.map(({ key }) => unmarked(key).key));
    const added = new Set(additions.map(({ key }) => key));
    for (const { key } of this.adjust.env.filter((one) => removed.has(one.key)))
      this.#owners.clear(id, Field.Env, plugin, key);
    for (const { key } of additions) this.#owners.claim(id, Field.Env, plugin, key);
    this.adjust.env = [
      ...this.adjust.env.filter(({ key }) => !removed.has(key)),
      ...removals.filter(({ key }) => !added.has(unmarked(key).key)),
      ...additions,
    ];
    const nameOf = (variable: string): string => variable.split("=", 1)[0] ?? "";
    const kept = this.#container.env.filter((one) => !removed.has(nameOf(one)) && !added.has(nameOf(one)));
    this.#container.env = [...kept, ...additions.map(({ key, value }) => `${key}=${value}`)];
  }

  #args(wanted: readonly string[], plugin: string): void {
    if (wanted.length === 0) return;
    const { id } = this.#container;
    const replaces = wanted[0] === "";
    if (replaces) this.#owners.clear(id, Field.Args, plugin);
    this.#owners.claim(id, Field.Args, plugin);
    this.adjust.args = replaces ? wanted.slice(1) : [...wanted];
    this.#container.args = [...this.adjust.args];
  }

  #hooks({ hooks }: ContainerAdjustment, plugin: string): void {
    if (hooks === undefined || HOOK_POINTS.every((point) => hooks[point].length === 0)) return;
    this.adjust.hooks ??= create(HooksSchema);
    this.#container.hooks ??= create(HooksSchema);
    for (const point of HOOK_POINTS) {
      this.adjust.hooks[point].push(...hooks[point]);
      this.#container.hooks[point].push(...hooks[point]);
    }
    this.#owners.addHooks(this.#container.id, plugin);
  }

  #namespaces(
    linux: LinuxContainerAdjustment,
    container: LinuxContainer,
    merged: LinuxContainerAdjustment,
    plugin: string,
  ): void {
    for (const namespace of linux.namespaces) {
      const { key, removed } = unmarked(namespace.type);
      this.#owners.claim(this.#container.id, Field.Namespace, plugin, key);
      container.namespaces = container.namespaces.filter(({ type }) => type !== key);
      if (!removed) container.namespaces.push(namespace);
      merged.namespaces.push(namespace);
    }
  }

  #rdt(rdt: LinuxRdt, merged: LinuxContainerAdjustment, plugin: string): void {
    const { id } = this.#container;
    if (rdt.remove) {
      for (const [, field] of RDT) this.#owners.clear(id, field, plugin);
      merged.rdt = create(LinuxRdtSchema, { remove: true });
    }
    merged.rdt ??= create(LinuxRdtSchema);
    for (const [key, field] of RDT) {
      if (rdt[key] === undefined) continue;
      this.#owners.claim(id, field, plugin);
      Object.assign(merged.rdt, { [key]: rdt[key], remove: false });
    }
  }
}

const SINGLE = [
  ["oomScoreAdj", Field.OomScoreAdj],
  ["ioPriority", Field.IoPriority],
  ["seccompPolicy", Field.SeccompPolicy],
  ["scheduler", Field.LinuxSched],
  ["memoryPolicy", Field.MemoryPolicy],
] as const;

const RDT = [
  ["closId", Field.RdtClosID],
  ["schemata", Field.RdtSchemata],
  ["enableMonitoring", Field.RdtEnableMonitoring],
] as const;

/** Updates of containers that are there. */
export class UpdateMerge {
  readonly #updates = new Map<string, ContainerUpdate>();
  readonly #owners = new Owners();
  readonly #target: { readonly id: string; resources: LinuxResources } | undefined;

  /** @param target the container that the event updates, and to what: changed by each {@link apply} */
  constructor(target?: { readonly id: string; resources: LinuxResources }) {
    this.#target = target;
  }

  /** Of containers beside the event's own, in the order of their first mention. */
  get others(): readonly ContainerUpdate[] {
    return [...this.#updates.values()].filter(({ containerId }) => containerId !== this.#target?.id);
  }

  /** What the event's own is to be updated to, if a plugin has a say. */
  get own(): LinuxResources | undefined {
    return this.#updates.get(this.#target?.id ?? "")?.linux?.resources;
  }

  /** @throws FailedPrecondition if another plugin has changed the same, unless that may fail */
  apply(updates: readonly ContainerUpdate[], plugin: string): void {
    for (const update of updates) {
      try {
        this.#applyOne(update, plugin);
      } catch (error) {
        if (!update.ignoreFailure) throw error;
      }
    }
  }

  #applyOne({ containerId, linux, ignoreFailure }: ContainerUpdate, plugin: string): void {
    const earlier = this.#updates.get(containerId);
    const merged =
      earlier ?? create(ContainerUpdateSchema, { containerId, ignoreFailure, linux: { resources: {} } });
    merged.ignoreFailure &&= ignoreFailure;
    this.#updates.set(containerId, merged);
    if (linux?.resources === undefined) return;
    const target = this.#target?.id === containerId ? this.#target : undefined;
    // A copy: of what fails, nothing stays.
    const base = target?.resources ?? merged.linux?.resources;
    const resources = base === undefined ? create(LinuxResourcesSchema) : clone(LinuxResourcesSchema, base);
    mergeResources([resources], linux.resources, (field, entry) =>
      this.#owners.claim(containerId, field, plugin, entry),
    );
    merged.linux = create(LinuxContainerUpdateSchema, { resources });
    if (target !== undefined) target.resources = clone(LinuxResourcesSchema, resources);
  }
}
