import type { Remote } from "../client/remote.ts";
import type { RemoteSandboxController } from "../client/sandbox-controller.ts";
import type { Config, ProxyPluginConfig } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import type { BlobStore } from "../model/content.ts";
import type { Differ } from "../model/diff.ts";
import { parsePlatform, platformOf } from "../model/platforms.ts";
import type { SandboxController } from "../model/sandboxes.ts";
import type { Snapshotter } from "../model/snapshots.ts";
import { type PartName, type Parts, PluginType } from "./parts.ts";

/** `type` of `[proxy_plugins]`, in its short form too (containerd `cmd/containerd/server/server.go`, LoadPlugins). */
const TYPES: Readonly<Record<string, string>> = {
  snapshot: PluginType.snapshotter,
  content: PluginType.content,
  sandbox: PluginType.sandboxController,
  diff: PluginType.differ,
};

/** Other processes' parts, by their sockets: the connection is made by the first call. */
export class Proxies {
  readonly #parts: Parts;
  readonly #plugins: Config["proxyPlugins"];
  readonly #remotes = new Map<string, Remote>();
  readonly #controllers = new Map<string, RemoteSandboxController>();

  constructor(parts: Parts, plugins: Config["proxyPlugins"]) {
    this.#parts = parts;
    this.#plugins = plugins;
  }

  /** One that bears a built-in part's name takes its place. */
  has(type: string, name: string): boolean {
    return this.#of(type).some(([each]) => each === name);
  }

  /** Adds those that are snapshotters, by name. */
  async startSnapshotters(running: Map<string, Snapshotter>): Promise<void> {
    for (const [name, plugin] of this.#of(PluginType.snapshotter)) {
      const part = await this.#parts.start(nameOf(name, plugin), {}, async () => {
        const { remoteSnapshotter } = await import("../client/snapshotter.ts");
        return remoteSnapshotter(await this.#remote(plugin.address), { name });
      });
      if (part !== undefined) running.set(name, part);
    }
  }

  /** Those that are content stores. */
  async startContent(clock: Clock): Promise<readonly BlobStore[]> {
    const running: BlobStore[] = [];
    for (const [name, plugin] of this.#of(PluginType.content)) {
      const part = await this.#parts.start(nameOf(name, plugin), {}, async () => {
        const { remoteBlobs } = await import("../client/blobs.ts");
        return remoteBlobs(await this.#remote(plugin.address), { name, clock });
      });
      if (part !== undefined) running.push(part);
    }
    return running;
  }

  /** Adds those that are differs, by name. */
  async startDiffers(running: Map<string, Differ>): Promise<void> {
    for (const [name, plugin] of this.#of(PluginType.differ)) {
      const part = await this.#parts.start(nameOf(name, plugin), {}, async () => {
        const { remoteDiffer } = await import("../client/diff.ts");
        return remoteDiffer(await this.#remote(plugin.address));
      });
      if (part !== undefined) running.set(name, part);
    }
  }

  /** Those that are sandbox controllers, by name. */
  async startSandboxControllers(): Promise<ReadonlyMap<string, SandboxController>> {
    for (const [name, plugin] of this.#of(PluginType.sandboxController)) {
      const part = await this.#parts.start(nameOf(name, plugin), {}, async () => {
        const { RemoteSandboxController } = await import("../client/sandbox-controller.ts");
        return new RemoteSandboxController(await this.#remote(plugin.address), name);
      });
      if (part !== undefined) this.#controllers.set(name, part);
    }
    return this.#controllers;
  }

  /** Ends the waits for sandboxes of other processes. */
  stopWaiting(): void {
    for (const controller of this.#controllers.values()) controller.stopWaiting();
  }

  #of(type: string): [string, ProxyPluginConfig][] {
    return Object.entries(this.#plugins).filter(([, plugin]) => typeOf(plugin) === type);
  }

  async #remote(address: string): Promise<Remote> {
    const { Remote } = await import("../client/remote.ts");
    const remote = this.#remotes.get(address) ?? new Remote(address);
    this.#remotes.set(address, remote);
    return remote;
  }

  close(): void {
    for (const remote of this.#remotes.values()) remote.close();
  }
}

function typeOf({ type }: ProxyPluginConfig): string {
  return TYPES[type] ?? type;
}

/** @throws InvalidArgument on a platform */
function nameOf(id: string, plugin: ProxyPluginConfig): PartName {
  const { address, platform, exports, capabilities } = plugin;
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const platforms = [platform === "" ? platformOf("linux", architecture) : parsePlatform(platform)];
  return { type: typeOf(plugin), id, exports: { ...exports, address }, platforms, capabilities };
}
