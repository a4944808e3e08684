import { join } from "node:path";
import type { CommitReport } from "../bolt/db.ts";
import type { Config } from "../config/config.ts";
import { useTemporaryMounts } from "../diff/mounts.ts";
import { Exchange } from "../events/exchange.ts";
import { createMetrics, type DaemonMetrics } from "../http/metrics.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { type Metadata, openMetadata } from "../metadata/metadata.ts";
import { BunkerdError } from "../model/errors.ts";
import { HealthStatus } from "../transport/health.ts";
import { startCollection } from "./collection.ts";
import { startContent } from "./content.ts";
import { holdOutput, startCri } from "./cri.ts";
import { openDatabase } from "./database.ts";
import { UsedDeprecations } from "./deprecations.ts";
import { startDiff } from "./diff.ts";
import { createDirectories } from "./directories.ts";
import { startListeners } from "./listeners.ts";
import { startMounts } from "./mounts.ts";
import { startOpt } from "./opt.ts";
import { Parts, PluginType } from "./parts.ts";
import { startPods } from "./pods.ts";
import { applyProcessSettings } from "./process.ts";
import { Proxies } from "./proxies.ts";
import { startRestart } from "./restart.ts";
import { startRuntime } from "./runtime.ts";
import { startServices, ttrpcBindings } from "./services.ts";
import { startSnapshotters } from "./snapshotters.ts";
import { startTaskMonitor } from "./task-monitor.ts";
import { startTransfer } from "./transfer.ts";

export interface DaemonOptions {
  readonly logger: Logger;
  readonly version: string;
  readonly revision: string;
}

export interface Daemon extends AsyncDisposable {
  /** What runs and how it fares, for people: the debug page and SIGUSR1. */
  state(): unknown;
}

/** How long calls in flight may take to end once the daemon stops. */
const DRAIN_MS = 5000;

/**
 * Builds every part, in this order: folders, database and its lock, stores, services, listeners. Disposal closes them in
 * reverse. @throws what a part throws that cannot start; what was built before is closed again
 */
export async function startDaemon(config: Config, options: DaemonOptions): Promise<Daemon> {
  const { logger, version, revision } = options;
  await using stack = new AsyncDisposableStack();
  const parts = new Parts({ disabled: config.disabledPlugins });
  const clock = systemClock();
  const health = new HealthStatus();

  createDirectories(config);
  applyProcessSettings(config, logger);
  const metrics = metricsOf(config, options);
  await startOpt(parts, config);

  const exchange = await parts.start(
    { type: PluginType.event, id: "exchange" },
    {},
    () => new Exchange({ clock }),
  );
  const proxies = new Proxies(parts, config.proxyPlugins);
  stack.defer(() => proxies.close());
  const deprecations = new UsedDeprecations(clock);
  const base = { parts, config, logger, clock, exchange, proxies, deprecations, stack };
  const opened = await startMetadata({ ...base, metrics });
  const output = holdOutput(base);
  const { collection, metadata } = await startCollection({ ...base, metadata: opened, metrics });
  const mounts = await startMounts({ ...base, metadata });
  const { differs, service: diff } = await startDiff(parts, config, metadata, proxies);
  const runtime = await startRuntime({ ...base, metadata, differs: diff?.differs ?? [], version });
  const { tasks, measure } = runtime;
  await startTaskMonitor({ parts, config, exchange, metrics, measure });
  const transfer = await startTransfer({ ...base, metadata, differs });
  const restart = await startRestart({ ...base, metadata, tasks });
  const cri = await startCri({ ...base, metadata, runtime, output, transfers: transfer.transfers, version });
  const bindings = await startServices({
    ...{ parts, exchange, metadata, collection, mounts, diff, tasks, transfer, health },
    ...{ cri: cri.bindings, deprecations, root: config.root, version, revision },
  });
  metrics?.addServices(bindings);

  let ready = false;
  let listeners: readonly { readonly openCalls: number }[] = [];
  const state = () => ({
    ...{ version, revision, root: config.root, state: config.state },
    ...stateOf(parts, exchange),
    openCalls: listeners.reduce((sum, listener) => sum + listener.openCalls, 0),
  });
  const listening = {
    ...{ parts, config, logger, bindings },
    ttrpcBindings: ttrpcBindings(parts, exchange),
    metrics,
    ready: () => ready,
    state,
  };
  listeners = await startListeners(listening, (opened) => stack.defer(() => opened.close(DRAIN_MS)));
  parts.requireAll(config.requiredPlugins);

  // First of all that happens at the stop: streams that would never end by themselves are told to.
  stack.defer(() => {
    ready = false;
    health.shutdown();
    tasks?.stopWaiting();
    cri.stopWaiting();
    proxies.stopWaiting();
    exchange?.close();
  });
  ready = true;
  restart?.start();
  startPods({ config, logger, metrics, stack, cri: cri.bindings });
  const owned = stack.move();
  return { state, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function metricsOf({ metrics }: Config, { version, revision }: DaemonOptions): DaemonMetrics | undefined {
  return metrics.address === ""
    ? undefined
    : createMetrics({ histogram: metrics.grpcHistogram, version, revision });
}

function stateOf(parts: Parts, exchange: Exchange | undefined) {
  return {
    pid: process.pid,
    uptimeSeconds: process.uptime(),
    eventSubscribers: exchange?.subscribers ?? 0,
    memory: process.memoryUsage(),
    plugins: pluginErrors(parts),
  };
}

function pluginErrors(parts: Parts): readonly { id: string; error: string | undefined }[] {
  return parts.list().map(({ type, id, initError }) => ({ id: `${type}.${id}`, error: initError?.message }));
}

interface MetadataParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly exchange: Exchange | undefined;
  readonly proxies: Proxies;
  readonly metrics: DaemonMetrics | undefined;
  readonly stack: AsyncDisposableStack;
}

/** Where containerd's are. What cannot be taken away stays, and is told. */
function clearTemporaryMounts(root: string, logger: Logger, stack: AsyncDisposableStack): void {
  const path = join(root, "tmpmounts");
  try {
    stack.use(useTemporaryMounts(path));
  } catch (error) {
    logger.warn("failed to clear temporary mounts", { path, error });
  }
}

/** The blobs, the database with its lock, and the stores on both. */
async function startMetadata(given: MetadataParts): Promise<Metadata | undefined> {
  const { parts, config, logger, clock, exchange, metrics, proxies, stack } = given;
  const content = await startContent({ parts, config, logger, clock, proxies });
  const snapshotters = await startSnapshotters({ parts, config, clock, logger, proxies, stack });
  const path = join(config.root, `${PluginType.metadata}.bolt`, "meta.db");
  const { openTimeoutMs, contentSharing } = config.bolt;
  const name = { type: PluginType.metadata, id: "bolt", exports: { path, policy: contentSharing } };
  if (content instanceof BunkerdError) {
    parts.refuse(name, content);
    return undefined;
  }
  return parts.start(name, { content, snapshotters, exchange }, async (needed) => {
    let stores: Metadata | undefined;
    const onCommit = (report: CommitReport): void => {
      metrics?.observeCommit(report);
      stores?.changes.written(report.batchSize);
    };
    const db = await openDatabase(path, { openTimeoutMs, onCommit });
    stack.defer(() => db.close());
    const dependencies = { blobs: needed.content, snapshotters, publisher: needed.exchange, logger, clock };
    stores = await openMetadata(db, dependencies, { contentSharing });
    // Behind the database's lock: another daemon's mounts are in use.
    clearTemporaryMounts(config.root, logger, stack);
    await stores.sweepIngests();
    for (const snapshots of stores.snapshots.values()) {
      stack.defer(() => snapshots.close());
      await snapshots.recover();
      snapshots.sweep();
    }
    return stores;
  });
}
