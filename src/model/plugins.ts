import type { Any } from "@bufbuild/protobuf/wkt";
import type { Platform } from "./platforms.ts";

/** One part of the daemon as containerd names parts: `io.containerd.grpc.v1` and `containers`. */
export interface Plugin {
  readonly type: string;
  readonly id: string;
  /** Types of the plugins that it needs. */
  readonly requires: readonly string[];
  readonly platforms: readonly Platform[];
  /** What it tells about itself, such as `root` of a snapshotter. */
  readonly exports: Readonly<Record<string, string>>;
  readonly capabilities: readonly string[];
  /**
   * Why it does not run; undefined while it does. `ctr plugins ls` shows `skip` if the message says `skip plugin`,
   * `error` for any other.
   */
  readonly initError?: Error | undefined;
  /** Answers `PluginInfo` with options, such as what a runtime can do. @throws what the plugin throws */
  info?(options: Any, signal: AbortSignal): Promise<Any>;
}

/** The parts that really run, or tried to, in the order of their start. Filled by `daemon/`, told by Introspection. */
export interface PluginTable {
  list(): readonly Plugin[];
}
