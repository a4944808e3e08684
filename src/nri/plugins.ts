/** Plugins from their coming to their going: the installed ones, and those that connect. */
import { mkdirSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import type {
  Container,
  ContainerUpdate,
  PodSandbox,
  UpdateContainersRequest,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import type { Config } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import { listen } from "../transport/listen.ts";
import { removeSocket } from "../transport/socket-path.ts";
import { type InstalledPlugin, installedPlugins, type LaunchedPlugin, launchPlugin } from "./launch.ts";
import { Plugin, type PluginOptions, type RuntimeIdentity } from "./plugin.ts";

export interface PluginsOptions {
  readonly config: Config["nri"];
  readonly identity: RuntimeIdentity;
}

/** Tells a new plugin what there is; answers what it wants updated. */
export type Tell = (
  pods: readonly PodSandbox[],
  containers: readonly Container[],
) => Promise<readonly ContainerUpdate[]>;

export interface PluginsDependencies {
  readonly logger: Logger;
  /** Calls back with what there is, while nothing changes; carries out what the plugins answer. */
  readonly synchronize: (tell: Tell) => Promise<void>;
  readonly updateContainers: (request: UpdateContainersRequest) => Promise<ContainerUpdate[]>;
}

export class Plugins {
  readonly #config: Config["nri"];
  readonly #identity: RuntimeIdentity;
  readonly #dependencies: PluginsDependencies;
  readonly #logger: Logger;
  readonly #launched = new Map<Plugin, LaunchedPlugin>();
  /** Those that have registered come later to {@link #active}. */
  readonly #connected = new Set<Plugin>();
  #active: readonly Plugin[] = [];
  #server: Server | undefined;
  #inode: number | undefined;
  #closing = false;

  constructor({ config, identity }: PluginsOptions, dependencies: PluginsDependencies) {
    this.#config = config;
    this.#identity = identity;
    this.#dependencies = dependencies;
    this.#logger = dependencies.logger;
  }

  /** Those that take part, by their index, of one index in the order of their coming. */
  list(): readonly Plugin[] {
    return this.#active;
  }

  /** @throws InvalidArgument for an installed plugin without an index, what keeps it from listening */
  async start(): Promise<void> {
    const { plugin_path, plugin_config_path, disable_connections } = this.#config;
    const installed = installedPlugins(plugin_path, plugin_config_path);
    await Promise.all(installed.map((one) => this.#launch(one)));
    if (!disable_connections) await this.#listen();
  }

  async close(): Promise<void> {
    this.#closing = true;
    const server = this.#server;
    if (server !== undefined) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      if (this.#inode !== undefined) removeSocket(this.#config.socket_path, this.#inode);
      for (const plugin of this.#connected) plugin.close();
      await closed;
    }
    for (const plugin of this.#connected) plugin.close();
    await Promise.all([...this.#launched.values()].map((launched) => launched.stop()));
  }

  /** An installed plugin that does not come up is left out: it must not keep the daemon from starting. */
  async #launch(installed: InstalledPlugin): Promise<void> {
    const { name, config } = installed;
    let launched: LaunchedPlugin | undefined;
    try {
      launched = await launchPlugin(installed);
      const plugin = this.#connect(launched.socket, { name, config });
      this.#launched.set(plugin, launched);
      await this.#admit(plugin);
    } catch (error) {
      const what = { plugin: `${name.index}-${name.base}`, error };
      this.#logger.warn("failed to start pre-installed NRI plugin", what);
      await launched?.stop();
    }
  }

  async #listen(): Promise<void> {
    const { socket_path: path } = this.#config;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const server = createServer((socket) => void this.#welcome(socket));
    this.#server = server;
    this.#inode = await listen(server, {
      path,
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
    });
    server.on("error", (error) => this.#logger.error("accept of NRI plugins failed", { error }));
  }

  async #welcome(socket: Socket): Promise<void> {
    const plugin = this.#connect(socket, {});
    try {
      await this.#admit(plugin);
    } catch (error) {
      this.#logger.error("failed to start external NRI plugin", { plugin: plugin.name, error });
      plugin.close();
    }
  }

  #connect(socket: Socket, options: Omit<PluginOptions, "timeouts">): Plugin {
    const { plugin_registration_timeout, plugin_request_timeout } = this.#config;
    const timeouts = { registrationMs: plugin_registration_timeout, requestMs: plugin_request_timeout };
    const { logger, updateContainers } = this.#dependencies;
    const plugin = new Plugin(socket, { ...options, timeouts }, { logger, updateContainers });
    this.#connected.add(plugin);
    void plugin.closed.then(() => this.#left(plugin));
    return plugin;
  }

  /** Registered, configured, told what there is: from then on it takes part. */
  async #admit(plugin: Plugin): Promise<void> {
    await plugin.start(this.#identity);
    await this.#dependencies.synchronize(async (pods, containers) => {
      const updates = await plugin.synchronize(pods, containers);
      if (!plugin.ended)
        this.#active = [...this.#active, plugin].sort((a, b) => a.index.localeCompare(b.index));
      return updates;
    });
    this.#logger.info("NRI plugin connected and synchronized", { plugin: plugin.name });
  }

  #left(plugin: Plugin): void {
    this.#connected.delete(plugin);
    const took = this.#active.includes(plugin);
    this.#active = this.#active.filter((other) => other !== plugin);
    if (took && !this.#closing) this.#logger.info("connection to NRI plugin closed", { plugin: plugin.name });
    void this.#launched.get(plugin)?.stop();
    this.#launched.delete(plugin);
  }
}
