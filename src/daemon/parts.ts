import { BunkerdError, fail } from "../model/errors.ts";
import type { Plugin, PluginTable } from "../model/plugins.ts";

/** Types of containerd's plugins: `plugins/types.go`. */
export const PluginType = {
  event: "io.containerd.event.v1",
  content: "io.containerd.content.v1",
  snapshotter: "io.containerd.snapshotter.v1",
  differ: "io.containerd.differ.v1",
  metadata: "io.containerd.metadata.v1",
  gc: "io.containerd.gc.v1",
  lease: "io.containerd.lease.v1",
  streaming: "io.containerd.streaming.v1",
  imageVerifier: "io.containerd.image-verifier.v1",
  transfer: "io.containerd.transfer.v1",
  shim: "io.containerd.shim.v1",
  mountHandler: "io.containerd.mount-handler.v1",
  mountManager: "io.containerd.mount-manager.v1",
  runtime: "io.containerd.runtime.v2",
  taskMonitor: "io.containerd.monitor.task.v1",
  containerMonitor: "io.containerd.monitor.container.v1",
  sandboxStore: "io.containerd.sandbox.store.v1",
  sandboxController: "io.containerd.sandbox.controller.v1",
  podSandbox: "io.containerd.podsandbox.controller.v1",
  internal: "io.containerd.internal.v1",
  service: "io.containerd.service.v1",
  cri: "io.containerd.cri.v1",
  grpc: "io.containerd.grpc.v1",
  metrics: "io.containerd.metrics.v1",
  server: "io.containerd.server.v1",
} as const;

export interface PartName {
  readonly type: string;
  readonly id: string;
  /** What the part tells of itself, such as the path of its database. */
  readonly exports?: Readonly<Record<string, string>>;
  readonly platforms?: Plugin["platforms"];
  readonly capabilities?: readonly string[];
  /** What is built answers questions about itself by its `info`. */
  readonly informs?: boolean;
}

/** What a part was built from: another part's value, undefined if that part is disabled or did not start. */
export type Needs = Readonly<Record<string, object | undefined>>;
type Given<N extends Needs> = { readonly [K in keyof N]: NonNullable<N[K]> };

export interface PartsOptions {
  /** Plugin URIs. */
  readonly disabled: ReadonlySet<string>;
}

/**
 * The daemon's parts in the order of their start. A disabled part is not there at all; a part whose needs are not there
 * is listed with that as its error, as containerd does; a part that fails to start stops the daemon.
 */
export class Parts implements PluginTable {
  readonly #disabled: ReadonlySet<string>;
  readonly #plugins: Plugin[] = [];
  readonly #typeOf = new WeakMap<object, string>();

  constructor({ disabled }: PartsOptions) {
    this.#disabled = disabled;
  }

  list(): readonly Plugin[] {
    return this.#plugins;
  }

  /** Builds a part and lists it. Undefined if it is disabled or lacks what it needs. @throws what `build` throws */
  async start<N extends Needs, T extends object>(
    name: PartName,
    needs: N,
    build: (given: Given<N>) => T | Promise<T>,
  ): Promise<T | undefined> {
    const { type, id } = name;
    if (this.#disabled.has(`${type}.${id}`)) return undefined;
    const missing = Object.keys(needs).find((key) => needs[key] === undefined);
    if (missing !== undefined) {
      this.#add(name, [], fail("NotFound", `${missing}: plugin`));
      return undefined;
    }
    const built = await build(needs as Given<N>);
    const requires = Object.values(needs).flatMap((need) => (need && this.#typeOf.get(need)) ?? []);
    this.#typeOf.set(built, type);
    this.#add(name, [...new Set(requires)], undefined, built);
    return built;
  }

  /** As {@link start}, for a part that the daemon can do without: what `build` throws becomes the part's error. */
  async startOptional<N extends Needs, T extends object>(
    name: PartName,
    needs: N,
    build: (given: Given<N>) => T | Promise<T>,
  ): Promise<T | undefined> {
    try {
      return await this.start(name, needs, build);
    } catch (error) {
      this.#add(name, [], error instanceof Error ? error : new Error(String(error)));
      return undefined;
    }
  }

  /** Lets parts of one type be needed as one value. */
  group(type: string, value: object): void {
    this.#typeOf.set(value, type);
  }

  /** Lists a part that does not run for a reason that is no failure: `ctr plugins ls` shows `skip`. */
  skip(name: PartName, reason: string): void {
    this.refuse(name, new BunkerdError("Unimplemented", `${reason}: skip plugin`));
  }

  /** Lists a part that does not run, and why. */
  refuse(name: PartName, error: Error): void {
    if (!this.#disabled.has(`${name.type}.${name.id}`)) this.#add(name, [], error);
  }

  /** @throws FailedPrecondition if a required part did not start, NotFound if there is none of that name */
  requireAll(uris: readonly string[]): void {
    for (const uri of uris) {
      const plugin = this.#plugins.find(({ type, id }) => `${type}.${id}` === uri);
      if (plugin === undefined) throw new BunkerdError("NotFound", `required plugin ${uri} not included`);
      const error = plugin.initError;
      if (error !== undefined) {
        throw new BunkerdError("FailedPrecondition", `load required plugin ${uri}: ${error.message}`, {
          cause: error,
        });
      }
    }
  }

  #add(name: PartName, requires: readonly string[], initError?: Error, built?: object): void {
    const { type, id, exports = {}, platforms = [], capabilities = [] } = name;
    const plugin = { type, id, requires, platforms, exports, capabilities, initError };
    this.#plugins.push(
      name.informs === true && tells(built)
        ? { ...plugin, info: (...request) => built.info(...request) }
        : plugin,
    );
  }
}

function tells(built: object | undefined): built is Required<Pick<Plugin, "info">> {
  return built !== undefined && "info" in built && typeof built.info === "function";
}
