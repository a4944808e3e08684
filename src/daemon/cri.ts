import { join } from "node:path";
import type { Config } from "../config/config.ts";
import type { CriCalls } from "../cri/calls.ts";
import { imageService } from "../cri/image-service.ts";
import { HeldOutput } from "../cri/io/held-output.ts";
import type { CriDependencies, OpenCri } from "../cri/open.ts";
import type { CriFolders } from "../cri/paths.ts";
import { runtimeService } from "../cri/runtime-service.ts";
import type { Exchange } from "../events/exchange.ts";
import type { Clock } from "../lib/clock.ts";
import { lazily } from "../lib/lazily.ts";
import type { Logger } from "../lib/log.ts";
import type { Metadata } from "../metadata/metadata.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";
import type { SandboxController } from "../model/sandboxes.ts";
import type { TaskStore } from "../model/tasks.ts";
import { sandboxControllerService } from "../services/sandboxes.ts";
import type { LocalTransfers } from "../transfer/local.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import type { UsedDeprecations } from "./deprecations.ts";
import { type Parts, PluginType } from "./parts.ts";
import type { Proxies } from "./proxies.ts";
import type { Runtime } from "./runtime.ts";

export interface CriParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly exchange: Exchange | undefined;
  readonly metadata: Metadata | undefined;
  readonly runtime: Runtime;
  readonly proxies: Proxies;
  readonly deprecations: UsedDeprecations;
  readonly transfers: LocalTransfers | undefined;
  readonly output: HeldOutput;
  readonly version: string;
  readonly stack: AsyncDisposableStack;
}

const NAMESPACE = "k8s.io";

function foldersOf({ root, state }: Config): CriFolders {
  const folder = `${PluginType.grpc}.cri`;
  return { root: join(root, folder), state: join(state, folder) };
}

/** What containers write from now on, and end, is not lost until pods are taken over. Behind the database's lock: they are no other daemon's. */
export function holdOutput({
  config,
  logger,
  stack,
}: Pick<CriParts, "config" | "logger" | "stack">): HeldOutput {
  const held = new HeldOutput(foldersOf(config), logger);
  stack.defer(() => held.close());
  return held;
}

export interface CriServices {
  readonly bindings: readonly ServiceBinding[];
  stopWaiting(): void;
}

/**
 * The kubelet's services, and that of all sandbox controllers. A daemon that nobody asks for pods does not load CRI: the first call does,
 * or pods that are there already, which need somebody to read their output and to notice their end.
 */
export async function startCri(given: CriParts): Promise<CriServices> {
  const { parts, exchange, metadata, runtime, transfers, version, stack } = given;
  const { tasks, sandboxes } = runtime;
  const part = (type: string, id: string) => ({ type, id });
  const sandboxers = await given.proxies.startSandboxControllers();
  const { faults, deprecations } = given.config.cri;
  const images = await parts.startOptional(
    part(PluginType.cri, "images"),
    { metadata, transfers },
    (needed) => {
      assertFaultless(faults.images);
      given.deprecations.used(...deprecations.images);
      return { ...needed.metadata, transfers: needed.transfers };
    },
  );
  const running = await parts.startOptional(part(PluginType.cri, "runtime"), { tasks }, (needed) => {
    assertFaultless(faults.runtime);
    given.deprecations.used(...deprecations.runtime);
    return needed.tasks;
  });
  const cri = await parts.start(
    part(PluginType.podSandbox, "podsandbox"),
    { images, running, exchange, sandboxes },
    (needed) => lazily(() => open(given, needed, sandboxers)),
  );
  if (cri === undefined) given.output.close();
  stack.defer(async () => await (await cri?.opened)?.close());
  const pods = await parts.start(part(PluginType.grpc, "cri"), { cri }, (needed) => {
    void loadForPods(given, needed.cri.get);
    const calls = async (): Promise<CriCalls> => (await needed.cri.get()).calls;
    const imageCalls = async () => (await needed.cri.get()).imageCalls;
    return [runtimeService({ calls, version }), imageService({ calls: imageCalls })];
  });
  const controllers = await parts.start(
    part(PluginType.grpc, "sandbox-controllers"),
    { sandboxes, exchange },
    (needed) =>
      sandboxControllerService({
        async controller(name) {
          const proxied = sandboxers.get(name);
          if (proxied !== undefined) return proxied;
          if (name === "shim") return needed.sandboxes;
          return name === "podsandbox" ? (await cri?.get())?.controllers.get(name) : undefined;
        },
        publisher: needed.exchange,
      }),
  );
  return {
    bindings: [...(pods ?? []), ...(controllers === undefined ? [] : [controllers])],
    stopWaiting() {
      sandboxes?.stopWaiting();
      void cri?.opened?.then((opened) => opened?.stopWaiting());
    },
  };
}

/** Without the plugin there is no CRI; what is wrong has been told with the configuration's other problems. */
function assertFaultless(fault: string | undefined): void {
  if (fault !== undefined) throw new BunkerdError("InvalidArgument", fault);
}

interface CriNeeds {
  readonly images: Metadata & Pick<CriDependencies, "transfers">;
  readonly running: TaskStore;
  readonly exchange: Exchange;
  readonly sandboxes: SandboxController;
}

async function open(
  { parts, config, logger, clock, deprecations, version }: CriParts,
  { images: stores, running: tasks, exchange: events, sandboxes }: CriNeeds,
  sandboxers: ReadonlyMap<string, SandboxController>,
): Promise<OpenCri> {
  const { openCri } = await import("../cri/open.ts");
  const snapshotterRoots = new Map(
    parts
      .list()
      .filter(({ type }) => type === PluginType.snapshotter)
      .map(({ id, exports }) => [id, exports["root"] ?? ""]),
  );
  const controllers = new Map([["shim", sandboxes], ...sandboxers]);
  const rest = { deprecations, clock, logger };
  const dependencies = { ...stores, tasks, controllers, events, snapshotterRoots, ...rest };
  const withNri = !config.nri.disable && !config.disabledPlugins.has("io.containerd.nri.v1.nri");
  const nri = withNri ? { config: config.nri, version } : undefined;
  const shimPath =
    config.runtime.shimEnv.findLast((one) => one.startsWith("PATH="))?.slice("PATH=".length) ?? "";
  const options = {
    config: config.cri,
    folders: foldersOf(config),
    address: config.grpc.address,
    shimPath,
    nri,
  };
  return await openCri(options, dependencies);
}

async function loadForPods(
  { metadata, output, logger }: CriParts,
  load: () => Promise<unknown>,
): Promise<void> {
  if (metadata === undefined) return;
  try {
    const scope = { namespace: NAMESPACE };
    const [pods, others] = await Promise.all([
      metadata.containers.list(scope),
      metadata.sandboxes.list(scope),
    ]);
    if (pods.length + others.length > 0) await load();
    output.close();
  } catch (error) {
    logger.error("failed to take over pods", { error: messageOf(error) });
  }
}
