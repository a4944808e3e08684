/**
 * Pods' networks: which are configured, whether they are ready, attaching a pod to all of them and taking it off again (go-cni, and
 * `internal/cri/server/sandbox_run.go` of the reference).
 */
import type { CriConfig } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import { inNetworkNamespace, isNetworkNamespace, setInterfaceUp } from "../linux/netns.ts";
import { BunkerdError, isError, messageOf } from "../model/errors.ts";
import {
  addNetwork,
  checkNetwork,
  collectNetwork,
  deleteNetwork,
  type Endpoint,
  meansGone,
  networkStatus,
  type PluginRunner,
} from "./attach.ts";
import { AttachmentCache } from "./cache.ts";
import { ConfigFolder } from "./config-folder.ts";
import { type ConfigDump, dumpConfig } from "./dump.ts";
import { LOOPBACK_CONFIG } from "./loopback.ts";
import { type NetworkList, parseNetworkList } from "./network-list.ts";
import type { PodNetwork } from "./pod-network.ts";
import { type PodNetworkResult, podResult } from "./pod-result.ts";
import type { CniResult } from "./result.ts";

export type { PodNetwork } from "./pod-network.ts";
export { podNetwork } from "./pod-network.ts";
export type { PodNetworkResult, SandboxCniResult } from "./pod-result.ts";

export interface NetworksOptions {
  readonly config: CriConfig["runtime"];
  /** Where attachments are remembered; containerd's unless a test has its own. */
  readonly cacheFolder?: string;
  /** Of one plugin's call. */
  readonly timeoutMs?: number;
}

export interface NetworkStatus {
  readonly ready: boolean;
  /** Empty if ready; what `Status` puts behind `Network plugin returns error: `. */
  readonly message: string;
}

export interface Networks {
  /** Of the networks that pods without a handler's own get. Asks plugins of CNI 1.1.0 by STATUS. */
  status(): Promise<NetworkStatus>;
  /**
   * Attaches a pod to every configured network, or to none: what was attached is taken off again if one fails or the caller aborts.
   * @throws FailedPrecondition without a configuration, Unknown with what a plugin says, DeadlineExceeded, Canceled
   */
  add(pod: PodNetwork, signal?: AbortSignal): Promise<PodNetworkResult>;
  /**
   * Takes a pod off every network that it is attached to, by the configuration of that time, after a restart too. All is tried, then the
   * first failure thrown; what is gone already is no failure.
   */
  del(pod: PodNetwork, signal?: AbortSignal): Promise<void>;
  /** @throws what a plugin says that finds something amiss, Unimplemented before CNI 0.4.0 */
  check(pod: PodNetwork, signal?: AbortSignal): Promise<void>;
  /** Ends attachments of pods that are not among these, and lets plugins of CNI 1.1.0 look for more. */
  gc(podIds: readonly string[], signal?: AbortSignal): Promise<void>;
  /** `cniconfig` of a verbose Status. */
  configDump(): ConfigDump;
  /** `lastCNILoadStatus.<name>` of a verbose Status: `OK` or why the configuration could not be loaded, by `default` or handler. */
  loadStatus(): Readonly<Record<string, string>>;
  close(): void;
}

const CACHE_FOLDER = "/var/lib/cni";
/** The reference has none and waits as long as its caller: the kubelet gives a sandbox four minutes. */
const PLUGIN_TIMEOUT_MS = 180_000;
/** The kubelet asks every few seconds. */
const STATUS_TIMEOUT_MS = 10_000;
const DEFAULT = "default";

const { type: LOOPBACK_TYPE, ...LOOPBACK_LIST } = LOOPBACK_CONFIG;
const LOOPBACK = parseNetworkList(JSON.stringify({ ...LOOPBACK_LIST, plugins: [{ type: LOOPBACK_TYPE }] }));

/** A network and the interface that a pod has in it. */
export interface PodInterface {
  readonly list: NetworkList;
  readonly interfaceName: string;
}

interface Opened {
  readonly config: CriConfig["runtime"]["cni"];
  readonly runner: PluginRunner;
  readonly folders: ReadonlyMap<string, ConfigFolder>;
  readonly logger: Logger;
}

/** Follows the folders of configurations until it is closed. */
export function openNetworks(options: NetworksOptions, { logger }: { readonly logger: Logger }): Networks {
  const { cni, containerd } = options.config;
  const folders = new Map([
    [DEFAULT, new ConfigFolder({ path: cni.conf_dir, maxFiles: cni.max_conf_num }, { logger })],
  ]);
  for (const [name, handler] of Object.entries(containerd.runtimes)) {
    if (handler.cni_conf_dir === "") continue;
    const maxFiles = handler.cni_max_conf_num || cni.max_conf_num;
    folders.set(name, new ConfigFolder({ path: handler.cni_conf_dir, maxFiles }, { logger }));
  }
  const binDirs = cni.bin_dir === "" ? cni.bin_dirs : [cni.bin_dir];
  const cache = new AttachmentCache(options.cacheFolder ?? CACHE_FOLDER);
  const runner = { binDirs, cache, timeoutMs: options.timeoutMs ?? PLUGIN_TIMEOUT_MS };
  const opened: Opened = { config: cni, runner, folders, logger };
  return {
    status: () => status(opened),
    add: (pod, signal) => add(opened, pod, signal),
    del: (pod, signal) => del(opened, pod, signal),
    check: (pod, signal) => check(opened, pod, signal),
    gc: (podIds, signal) => gc(opened, podIds, signal),
    configDump: () => dumpConfig({ binDirs, folder: folderFor(opened, DEFAULT), interfaces: dumped(opened) }),
    loadStatus: () =>
      Object.fromEntries([...folders].map(([name, { failure }]) => [name, failure?.message ?? "OK"])),
    close: () => {
      for (const folder of folders.values()) folder.close();
    },
  };
}

function folderFor({ folders }: Opened, handler: string): ConfigFolder {
  const folder = folders.get(handler) ?? folders.get(DEFAULT);
  if (folder === undefined) throw new Error("there is a default folder");
  return folder;
}

/** @throws FailedPrecondition if nothing is configured */
function interfacesOf({ config }: Opened, { networks }: ConfigFolder): readonly PodInterface[] {
  if (networks.length === 0) throw new BunkerdError("FailedPrecondition", "cni plugin not initialized");
  const loopback = config.use_internal_loopback ? [] : [{ list: LOOPBACK, interfaceName: "lo" }];
  return [...loopback, ...networks.map((list, index) => ({ list, interfaceName: `eth${index}` }))];
}

/** The loopback network stands there even while nothing else is configured, as in go-cni. */
function dumped(opened: Opened): readonly PodInterface[] {
  const folder = folderFor(opened, DEFAULT);
  if (folder.networks.length > 0) return interfacesOf(opened, folder);
  return opened.config.use_internal_loopback ? [] : [{ list: LOOPBACK, interfaceName: "lo" }];
}

async function status(opened: Opened): Promise<NetworkStatus> {
  try {
    const runner = { ...opened.runner, timeoutMs: Math.min(STATUS_TIMEOUT_MS, opened.runner.timeoutMs) };
    for (const { list } of interfacesOf(opened, folderFor(opened, DEFAULT)))
      await networkStatus(runner, list);
    return { ready: true, message: "" };
  } catch (error) {
    if (!isError(error)) throw error;
    return { ready: false, message: error.message };
  }
}

function endpointOf(pod: PodNetwork, interfaceName: string, netnsPath = pod.netnsPath): Endpoint {
  const { id: containerId, args, capabilityArgs } = pod;
  return { containerId, netnsPath, interfaceName, args, capabilityArgs };
}

async function add(opened: Opened, pod: PodNetwork, signal?: AbortSignal): Promise<PodNetworkResult> {
  const { config, runner } = opened;
  const interfaces = interfacesOf(opened, folderFor(opened, pod.runtimeHandler));
  try {
    if (config.use_internal_loopback) bringUpLoopback(pod.netnsPath);
    const attach = ({ list, interfaceName }: PodInterface): Promise<CniResult> =>
      addNetwork(runner, list, endpointOf(pod, interfaceName), signal);
    const results = config.setup_serially
      ? await inTurn(interfaces, attach)
      : await together(interfaces, attach);
    return podResult(results, config.ip_pref);
  } catch (error) {
    await rollBack(opened, pod, interfaces);
    throw error;
  }
}

function bringUpLoopback(netnsPath: string): void {
  try {
    inNetworkNamespace(netnsPath, () => setInterfaceUp("lo"));
  } catch (error) {
    const words = `unable to set lo to up: error setting loopback interface up: ${messageOf(error)}`;
    throw new BunkerdError("Unknown", words, { cause: error });
  }
}

async function inTurn<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const item of items) results.push(await work(item));
  return results;
}

/** Ends when all have ended, so that a roll-back never runs beside what it takes back. @throws the first failure in the items' order */
async function together<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const settled = await Promise.allSettled(items.map(work));
  return settled.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
}

/** The caller's abort has no say here: addresses would stay taken. */
async function rollBack(opened: Opened, pod: PodNetwork, interfaces: readonly PodInterface[]): Promise<void> {
  try {
    await detachAll(opened, pod, interfaces);
  } catch (error) {
    opened.logger.warn("failed to take a pod off its networks after it could not be attached", {
      id: pod.id,
      error,
    });
  }
}

async function del(opened: Opened, pod: PodNetwork, signal?: AbortSignal): Promise<void> {
  const { networks } = folderFor(opened, pod.runtimeHandler);
  const configured = networks.length === 0 ? [] : interfacesOf(opened, folderFor(opened, pod.runtimeHandler));
  await detachAll(opened, pod, configured, signal);
}

/** What is remembered of the pod, by the configuration of that time, and what is configured, should the memory be lost. */
async function detachAll(
  { runner }: Opened,
  pod: PodNetwork,
  configured: readonly PodInterface[],
  signal?: AbortSignal,
): Promise<void> {
  const remembered = runner.cache.list(pod.id);
  const known = new Set(
    remembered.map(({ networkName, interfaceName }) => `${networkName} ${interfaceName}`),
  );
  // An empty path lets plugins free what is not in the namespace; a path of something else would fail them.
  const netnsPath = pod.netnsPath !== "" && isNetworkNamespace(pod.netnsPath) ? pod.netnsPath : "";
  const targets = [
    ...remembered.map((attachment) => ({
      list: () => parseNetworkList(attachment.config),
      endpoint: { ...attachment, netnsPath },
    })),
    ...configured
      .filter(({ list, interfaceName }) => !known.has(`${list.name} ${interfaceName}`))
      .map(({ list, interfaceName }) => ({
        list: () => list,
        endpoint: endpointOf(pod, interfaceName, netnsPath),
      })),
  ];
  await together(targets, async ({ list: read, endpoint }) => {
    const list = read();
    try {
      await deleteNetwork(runner, list, endpoint, signal);
    } catch (error) {
      if (!meansGone(error, netnsPath)) throw error;
      const { containerId, interfaceName } = endpoint;
      runner.cache.remove({ networkName: list.name, containerId, interfaceName });
    }
  });
}

async function check(opened: Opened, pod: PodNetwork, signal?: AbortSignal): Promise<void> {
  for (const { list, interfaceName } of interfacesOf(opened, folderFor(opened, pod.runtimeHandler))) {
    // Its configuration is ours, and of a version before the command.
    if (list !== LOOPBACK) await checkNetwork(opened.runner, list, endpointOf(pod, interfaceName), signal);
  }
}

async function gc(opened: Opened, podIds: readonly string[], signal?: AbortSignal): Promise<void> {
  const interfaces = new Map<string, PodInterface[]>();
  for (const folder of opened.folders.values()) {
    if (folder.networks.length === 0) continue;
    // Of loopback nothing is ever left over, and its records are shared with whatever else attaches pods on this machine.
    for (const found of interfacesOf(opened, folder).filter(({ list }) => list !== LOOPBACK))
      interfaces.set(found.list.name, [...(interfaces.get(found.list.name) ?? []), found]);
  }
  await together([...interfaces.values()], async (same) => {
    const valid = same.flatMap(({ list, interfaceName }) =>
      podIds.map((containerId) => ({ networkName: list.name, containerId, interfaceName })),
    );
    const [first] = same;
    if (first !== undefined) await collectNetwork(opened.runner, first.list, valid, signal);
  });
}
