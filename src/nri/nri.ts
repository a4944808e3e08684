/**
 * The node resource interface: plugins that see pods and containers come and go and have a say in how containers are made (containerd's
 * `internal/nri/nri.go`, NRI's `pkg/adaptation/adaptation.go`). One event at a time, to one plugin after another.
 */
import { clone, create } from "@bufbuild/protobuf";
import type { CallOptions } from "@connectrpc/connect";
import {
  type Container,
  type ContainerAdjustment,
  type ContainerEviction,
  ContainerSchema,
  ContainerState,
  type ContainerUpdate,
  Event,
  type LinuxResources,
  LinuxResourcesSchema,
  type PodSandbox,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import type { Config } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import { SharedLock } from "../lib/shared-lock.ts";
import { CreationMerge, UpdateMerge } from "./merge.ts";
import type { PluginClient } from "./plugin.ts";
import { Plugins, type Tell } from "./plugins.ts";
import { validate } from "./validation.ts";

/** What NRI needs of whoever keeps pods and containers. Ids that it does not know are no failure: nothing is done. */
export interface NriDomain {
  listPods(): Promise<readonly PodSandbox[]>;
  /** Those that are made or run. */
  listContainers(): Promise<readonly Container[]>;
  /** @throws why not */
  updateContainer(update: ContainerUpdate): Promise<void>;
  /** Stops it. @throws why not */
  evictContainer(eviction: ContainerEviction): Promise<void>;
}

export interface NriOptions {
  readonly config: Config["nri"];
  readonly version: string;
}

export interface NriDependencies {
  readonly logger: Logger;
  readonly domain: NriDomain;
}

/** Which version of NRI's API this is. */
const NRI_VERSION = "v0.12.0";
const RUNTIME_NAME = "containerd";

/** What plugins have been told of a pod or container; nobody hears twice of an end, or of one that never began. */
type Told = "created" | "running" | "stopped";

export class Nri {
  readonly #plugins: Plugins;
  readonly #domain: NriDomain;
  readonly #logger: Logger;
  readonly #config: Config["nri"];
  readonly #told = new Map<string, Told>();
  /** Events, one after another. */
  readonly #events = new SharedLock();
  /** While a pod or container is being made no plugin comes in: it would be told of it neither as being there nor as new. */
  readonly #joining = new SharedLock();

  constructor({ config, version }: NriOptions, { logger, domain }: NriDependencies) {
    this.#config = config;
    this.#domain = domain;
    this.#logger = logger;
    this.#plugins = new Plugins(
      { config, identity: { name: RUNTIME_NAME, version, nriVersion: NRI_VERSION } },
      {
        logger,
        synchronize: (tell) => this.#joining.alone(() => this.#events.alone(() => this.#synchronize(tell))),
        updateContainers: ({ update, evict }) =>
          this.#events.alone(async () => {
            await this.#evict(evict);
            return await this.#update(update);
          }),
      },
    );
  }

  /** Launches the installed plugins and listens for others. @throws what keeps it from listening */
  start(): Promise<void> {
    return this.#plugins.start();
  }

  /** Ends every connection and the plugins that were launched. */
  close(): Promise<void> {
    return this.#plugins.close();
  }

  /** Names of the plugins that take part, in the order of their calls. */
  get plugins(): readonly string[] {
    return this.#plugins.list().map(({ name }) => name);
  }

  /** True if anybody is to be told or asked anything. */
  get hasSay(): boolean {
    return this.#plugins.list().length > 0 || this.#config.default_validator.enable;
  }

  /** What was told of a pod or container that is gone does not matter any more. */
  forget(id: string): void {
    this.#told.delete(id);
  }

  /** Runs `work`, which makes a pod or a container, while no plugin comes in. */
  holdPlugins<T>(work: () => Promise<T>): Promise<T> {
    return this.#joining.shared(work);
  }

  /** @throws what a plugin says; the pod has been told to stop and to go then */
  async runPodSandbox(pod: PodSandbox, signal?: AbortSignal): Promise<void> {
    try {
      await this.#event(() => {
        this.#told.set(pod.id, "running");
        return this.#tell(
          Event.RUN_POD_SANDBOX,
          { pod },
          (client, options) => client.runPodSandbox({ pod }, options),
          signal,
        );
      });
    } catch (error) {
      await this.#quietly("undo of RunPodSandbox", async () => {
        await this.stopPodSandbox(pod);
        await this.removePodSandbox(pod);
      });
      throw error;
    }
  }

  /** @throws what a plugin says */
  updatePodSandbox(
    pod: PodSandbox,
    overheadLinuxResources: LinuxResources | undefined,
    linuxResources: LinuxResources | undefined,
    signal?: AbortSignal,
  ): Promise<void> {
    const request = {
      pod,
      ...(overheadLinuxResources === undefined ? {} : { overheadLinuxResources }),
      ...(linuxResources === undefined ? {} : { linuxResources }),
    };
    return this.#event(async () => {
      for (const plugin of this.#plugins.list())
        await plugin.call(
          Event.UPDATE_POD_SANDBOX,
          (client, options) => client.updatePodSandbox(request, options),
          signal,
        );
    });
  }

  postUpdatePodSandbox(pod: PodSandbox, signal?: AbortSignal): Promise<void> {
    const run: Run = (client, options) => client.postUpdatePodSandbox({ pod }, options);
    return this.#event(() => this.#tell(Event.POST_UPDATE_POD_SANDBOX, { pod }, run, signal));
  }

  stopPodSandbox(pod: PodSandbox, signal?: AbortSignal): Promise<void> {
    return this.#event(async () => {
      if (!this.#isLive(pod.id)) return;
      this.#told.set(pod.id, "stopped");
      await this.#tell(
        Event.STOP_POD_SANDBOX,
        { pod },
        (client, options) => client.stopPodSandbox({ pod }, options),
        signal,
      );
    });
  }

  removePodSandbox(pod: PodSandbox, signal?: AbortSignal): Promise<void> {
    return this.#event(async () => {
      if (!this.#told.delete(pod.id)) return;
      await this.#tell(
        Event.REMOVE_POD_SANDBOX,
        { pod },
        (client, options) => client.removePodSandbox({ pod }, options),
        signal,
      );
    });
  }

  /**
   * What the plugins want changed of a container that is being made: undefined for nothing. Other containers are updated and stopped
   * as they ask. @throws what a plugin says, FailedPrecondition if two want different things or a validator refuses
   */
  createContainer(
    pod: PodSandbox,
    container: Container,
    signal?: AbortSignal,
  ): Promise<ContainerAdjustment | undefined> {
    return this.#event(async () => {
      this.#told.set(container.id, "created");
      const plugins = this.#plugins.list();
      if (plugins.length === 0 && !this.#config.default_validator.enable) return undefined;
      const seen = clone(ContainerSchema, container);
      const merge = new CreationMerge(seen);
      for (const plugin of plugins) {
        const request = { pod, container: seen };
        const answer = await plugin.call(
          Event.CREATE_CONTAINER,
          (client, options) => client.createContainer(request, options),
          signal,
        );
        merge.apply(answer?.adjust, plugin.name);
        merge.applyUpdates(answer?.update ?? [], plugin.name);
        merge.evictions.push(...(answer?.evict ?? []));
      }
      await validate({ plugins, pod, container, merge, config: this.#config.default_validator, signal });
      await this.#evict(merge.evictions);
      await this.#update(merge.updates.others);
      return merge.adjust;
    });
  }

  /** A container that could not be made after all. */
  async undoCreateContainer(pod: PodSandbox, container: Container): Promise<void> {
    await this.#quietly("undo of CreateContainer", () => this.stopContainer(pod, container));
    await this.#quietly("undo of CreateContainer", () => this.removeContainer(pod, container));
  }

  postCreateContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    const run: Run = (client, options) => client.postCreateContainer({ pod, container }, options);
    return this.#event(() => this.#tell(Event.POST_CREATE_CONTAINER, { pod, container }, run, signal));
  }

  /** @throws what a plugin says */
  startContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    return this.#event(() => {
      this.#told.set(container.id, "running");
      const run: Run = (client, options) => client.startContainer({ pod, container }, options);
      return this.#tell(Event.START_CONTAINER, { pod, container }, run, signal);
    });
  }

  postStartContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    const run: Run = (client, options) => client.postStartContainer({ pod, container }, options);
    return this.#event(() => this.#tell(Event.POST_START_CONTAINER, { pod, container }, run, signal));
  }

  /** To what the container is to be updated instead: undefined if no plugin has a say. @throws as {@link createContainer} */
  updateContainer(
    pod: PodSandbox,
    container: Container,
    resources: LinuxResources | undefined,
    signal?: AbortSignal,
  ): Promise<LinuxResources | undefined> {
    return this.#event(async () => {
      const target = {
        id: container.id,
        resources:
          resources === undefined ? create(LinuxResourcesSchema) : clone(LinuxResourcesSchema, resources),
      };
      const merge = new UpdateMerge(target);
      const evictions: ContainerEviction[] = [];
      for (const plugin of this.#plugins.list()) {
        const request = { pod, container, linuxResources: target.resources };
        const answer = await plugin.call(
          Event.UPDATE_CONTAINER,
          (client, options) => client.updateContainer(request, options),
          signal,
        );
        merge.apply(answer?.update ?? [], plugin.name);
        evictions.push(...(answer?.evict ?? []));
      }
      await this.#evict(evictions);
      await this.#update(merge.others);
      return merge.own;
    });
  }

  postUpdateContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    const run: Run = (client, options) => client.postUpdateContainer({ pod, container }, options);
    return this.#event(() => this.#tell(Event.POST_UPDATE_CONTAINER, { pod, container }, run, signal));
  }

  /** Also of a container that has ended by itself; the second time nobody is told. @throws what a plugin says */
  stopContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    return this.#event(() => this.#stop(pod, container, signal));
  }

  /** @throws what a plugin says */
  removeContainer(pod: PodSandbox, container: Container, signal?: AbortSignal): Promise<void> {
    return this.#event(async () => {
      if (!this.#told.has(container.id)) return;
      await this.#quietly("StopContainer", () => this.#stop(pod, container, signal));
      this.#told.delete(container.id);
      const run: Run = (client, options) => client.removeContainer({ pod, container }, options);
      await this.#tell(Event.REMOVE_CONTAINER, { pod, container }, run, signal);
    });
  }

  async #stop(pod: PodSandbox, container: Container, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#isLive(container.id)) return;
    this.#told.set(container.id, "stopped");
    const merge = new UpdateMerge();
    for (const plugin of this.#plugins.list()) {
      const request = { pod, container };
      const answer = await plugin.call(
        Event.STOP_CONTAINER,
        (client, options) => client.stopContainer(request, options),
        signal,
      );
      merge.apply(answer?.update ?? [], plugin.name);
    }
    await this.#update(merge.others);
  }

  #isLive(id: string): boolean {
    const told = this.#told.get(id);
    return told === "created" || told === "running";
  }

  #event<T>(work: () => Promise<T>): Promise<T> {
    return this.#events.alone(work);
  }

  async #tell(
    event: Event,
    about: { readonly pod?: PodSandbox; readonly container?: Container },
    run: Run,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for (const plugin of this.#plugins.list()) await plugin.notify(event, about, run, signal);
  }

  async #synchronize(tell: Tell): Promise<void> {
    const [pods, containers] = await Promise.all([this.#domain.listPods(), this.#domain.listContainers()]);
    for (const { id } of pods) if (!this.#told.has(id)) this.#told.set(id, "running");
    for (const { id, state } of containers) {
      if (state === ContainerState.CONTAINER_CREATED) this.#told.set(id, "created");
      else if (state === ContainerState.CONTAINER_STOPPED) this.#told.set(id, "stopped");
      else if (state === ContainerState.CONTAINER_UNKNOWN) this.#told.delete(id);
      else this.#told.set(id, "running");
    }
    await this.#update(await tell(pods, containers));
  }

  /** Answers those that failed and must not. */
  async #update(updates: readonly ContainerUpdate[]): Promise<ContainerUpdate[]> {
    const failed: ContainerUpdate[] = [];
    for (const update of updates) {
      try {
        await this.#domain.updateContainer(update);
      } catch (error) {
        this.#logger.warn("NRI update of a container failed", { container: update.containerId, error });
        if (!update.ignoreFailure) failed.push(update);
      }
    }
    return failed;
  }

  async #evict(evictions: readonly ContainerEviction[]): Promise<void> {
    for (const eviction of evictions) {
      const { containerId, reason } = eviction;
      await this.#quietly(`eviction of ${containerId} (${reason})`, () =>
        this.#domain.evictContainer(eviction),
      );
    }
  }

  async #quietly(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#logger.warn(`NRI: ${what} failed`, { error });
    }
  }
}

type Run = (client: PluginClient, options: CallOptions) => Promise<unknown>;
