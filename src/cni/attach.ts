/** Operations on one network: CNI specification, section 3, as `libcni/api.go` carries them out. */
import { BunkerdError, messageOf, quote, within } from "../model/errors.ts";
import type { Attachment, AttachmentCache, AttachmentKey } from "./cache.ts";
import { type CniCommand, type Invocation, invokePlugin } from "./invoke.ts";
import type { JsonObject } from "./json.ts";
import type { NetworkList, PluginConfig } from "./network-list.ts";
import { type CniResult, readResult, writeResult } from "./result.ts";
import { isAtLeast } from "./versions.ts";

export interface PluginRunner {
  readonly binDirs: readonly string[];
  readonly cache: AttachmentCache;
  readonly timeoutMs: number;
}

/** What is attached: the container's side of the call. */
export interface Endpoint {
  readonly containerId: string;
  readonly netnsPath: string;
  readonly interfaceName: string;
  readonly args: readonly (readonly [string, string])[];
  /** Each plugin is given those that it says it can use. */
  readonly capabilityArgs: JsonObject;
}

/** Versions from which on plugins know the command. */
const CHECK_SINCE = "0.4.0";
const CACHED_RESULT_SINCE = "0.4.0";
const STATUS_SINCE = "1.1.0";
const GC_SINCE = "1.1.0";

/** Calls ADD of each plugin in turn, each with the result of the one before, and remembers the attachment. @throws what a plugin says */
export async function addNetwork(
  runner: PluginRunner,
  list: NetworkList,
  endpoint: Endpoint,
  signal?: AbortSignal,
): Promise<CniResult> {
  assertNames(endpoint);
  let result: CniResult | undefined;
  let written: JsonObject | undefined;
  for (const plugin of list.plugins) {
    try {
      const answer = await call(runner, "ADD", list, plugin, { endpoint, prevResult: written, signal });
      const versioned = { ...answer, cniVersion: answer?.["cniVersion"] || list.cniVersion };
      result = readResult(versioned);
      written = writeResult(result, result.cniVersion);
    } catch (error) {
      throw within(`plugin ${describe(plugin)} failed (add)`, error);
    }
  }
  if (result === undefined)
    throw new BunkerdError("InvalidArgument", `network ${quote(list.name)} has no plugins`);
  runner.cache.save({ ...endpoint, networkName: list.name, config: list.source, result: written });
  return result;
}

/** Calls DEL of each plugin, the last first, with the result that ADD had, and forgets the attachment. @throws what a plugin says */
export async function deleteNetwork(
  runner: PluginRunner,
  list: NetworkList,
  endpoint: Endpoint,
  signal?: AbortSignal,
): Promise<void> {
  const key = keyOf(list, endpoint);
  const prevResult = isAtLeast(list.cniVersion, CACHED_RESULT_SINCE)
    ? earlierResult(runner.cache.load(key), list.cniVersion)
    : undefined;
  for (const plugin of list.plugins.toReversed()) {
    try {
      await call(runner, "DEL", list, plugin, { endpoint, prevResult, signal });
    } catch (error) {
      throw within(`plugin ${describe(plugin)} failed (delete)`, error);
    }
  }
  runner.cache.remove(key);
}

/** Calls CHECK of each plugin. @throws what a plugin says, Unimplemented if the configuration is older than the command */
export async function checkNetwork(
  runner: PluginRunner,
  list: NetworkList,
  endpoint: Endpoint,
  signal?: AbortSignal,
): Promise<void> {
  if (!isAtLeast(list.cniVersion, CHECK_SINCE)) {
    const words = `configuration version ${quote(list.cniVersion)} does not support the CHECK command`;
    throw new BunkerdError("Unimplemented", words);
  }
  if (list.disableCheck) return;
  const prevResult = earlierResult(runner.cache.load(keyOf(list, endpoint)), list.cniVersion);
  for (const plugin of list.plugins) {
    try {
      await call(runner, "CHECK", list, plugin, { endpoint, prevResult, signal });
    } catch (error) {
      throw within(`plugin ${describe(plugin)} failed (check)`, error);
    }
  }
}

/** Asks plugins whether they can attach containers; those before 1.1.0 are not asked. @throws what the first says that cannot */
export async function networkStatus(
  runner: PluginRunner,
  list: NetworkList,
  signal?: AbortSignal,
): Promise<void> {
  if (!isAtLeast(list.cniVersion, STATUS_SINCE)) return;
  for (const plugin of list.plugins) await call(runner, "STATUS", list, plugin, { signal });
}

/**
 * Ends the network's attachments that are not `valid`, and lets the plugins look for what else is left over. All is tried, then the
 * first failure thrown.
 */
export async function collectNetwork(
  runner: PluginRunner,
  list: NetworkList,
  valid: readonly AttachmentKey[],
  signal?: AbortSignal,
): Promise<void> {
  if (list.disableGc) return;
  const known = new Set(valid.map(({ containerId, interfaceName }) => `${containerId} ${interfaceName}`));
  const failures: unknown[] = [];
  for (const attachment of runner.cache.list()) {
    const { networkName, containerId, interfaceName } = attachment;
    if (networkName !== list.name || known.has(`${containerId} ${interfaceName}`)) continue;
    try {
      await deleteNetwork(runner, list, attachment, signal);
    } catch (error) {
      failures.push(within(`failed to delete stale attachment ${containerId} ${interfaceName}`, error));
    }
  }
  if (isAtLeast(list.cniVersion, GC_SINCE)) {
    const attachments = valid.map(({ containerId, interfaceName }) => ({
      containerID: containerId,
      ifname: interfaceName,
    }));
    // The specification's first wording had the other name; plugins of both are about.
    const more = { "cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments };
    for (const plugin of list.plugins) {
      try {
        await call(runner, "GC", list, plugin, { more, signal });
      } catch (error) {
        failures.push(within(`failed to GC plugin ${plugin.type}`, error));
      }
    }
  }
  if (failures.length > 0) throw failures[0];
}

interface CallOptions {
  readonly endpoint?: Endpoint;
  readonly prevResult?: JsonObject | undefined;
  readonly more?: JsonObject;
  readonly signal?: AbortSignal | undefined;
}

function call(
  runner: PluginRunner,
  command: CniCommand,
  list: NetworkList,
  plugin: PluginConfig,
  { endpoint, prevResult, more = {}, signal }: CallOptions,
): ReturnType<typeof invokePlugin> {
  const given = Object.entries(endpoint?.capabilityArgs ?? {}).filter(([name]) =>
    plugin.capabilities.has(name),
  );
  const invocation: Invocation = {
    command,
    type: plugin.type,
    binDirs: runner.binDirs,
    ...endpoint,
    config: {
      ...plugin.json,
      name: list.name,
      cniVersion: list.cniVersion,
      ...(prevResult === undefined ? {} : { prevResult }),
      ...(given.length === 0 ? {} : { runtimeConfig: Object.fromEntries(given) }),
      ...more,
    },
    timeoutMs: runner.timeoutMs,
    signal,
  };
  return invokePlugin(invocation);
}

function keyOf(list: NetworkList, { containerId, interfaceName }: Endpoint): AttachmentKey {
  return { networkName: list.name, containerId, interfaceName };
}

/** In the configuration's version, should that have changed since; one that cannot be told there is none, as for the reference. */
function earlierResult(attachment: Attachment | undefined, cniVersion: string): JsonObject | undefined {
  if (attachment?.result === undefined) return undefined;
  try {
    return writeResult(readResult(attachment.result), cniVersion);
  } catch (error) {
    if (error instanceof BunkerdError) return undefined;
    throw error;
  }
}

const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** IFNAMSIZ without the NUL. */
const MAX_INTERFACE_NAME_BYTES = 15;

/** They become parts of paths and of the plugins' environment; the network's name was looked at when it was read. @throws InvalidArgument */
function assertNames({ containerId, interfaceName }: Endpoint): void {
  const refuse = (words: string): never => {
    throw new BunkerdError("InvalidArgument", words);
  };
  if (!CONTAINER_ID.test(containerId)) refuse(`invalid characters in containerID; ${containerId}`);
  if (Buffer.byteLength(interfaceName) > MAX_INTERFACE_NAME_BYTES)
    refuse(`interface name is too long; ${interfaceName}`);
  if (/^\.{0,2}$|[/:\s]/.test(interfaceName)) refuse(`invalid interface name; ${interfaceName}`);
}

function describe({ type, json }: PluginConfig): string {
  const { name } = json;
  return `type=${quote(type)}${typeof name === "string" && name !== "" ? ` name=${quote(name)}` : ""}`;
}

/** Whether DEL failed because there is nothing any more; plugins do not agree on that being a success (`go-cni`, `Remove`). */
export function meansGone(error: unknown, netnsPath: string): boolean {
  const words = messageOf(error);
  // A plugin that misses a program of its own has deleted nothing.
  if (words.includes("executable file not found")) return false;
  return words.includes("not found") || (netnsPath === "" && words.includes("no such file or directory"));
}
