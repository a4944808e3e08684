import { join } from "node:path";
import type { Config } from "../config/config.ts";
import type { CriCalls } from "../cri/calls.ts";
import { imageService } from "../cri/image-service.ts";
import type { CriDependencies, OpenCri } from "../cri/open.ts";
import { runtimeService } from "../cri/runtime-service.ts";
import type { Exchange } from "../events/exchange.ts";
import type { Clock } from "../lib/clock.ts";
import { lazily } from "../lib/lazily.ts";
import type { Logger } from "../lib/log.ts";
import type { Metadata } from "../metadata/metadata.ts";
import { messageOf } from "../model/errors.ts";
import type { TaskStore } from "../model/tasks.ts";
import type { LocalTransfers } from "../transfer/local.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface CriParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly exchange: Exchange | undefined;
  readonly metadata: Metadata | undefined;
  readonly tasks: TaskStore | undefined;
  readonly transfers: LocalTransfers | undefined;
  readonly version: string;
  readonly stack: AsyncDisposableStack;
}

const NAMESPACE = "k8s.io";

/**
 * The kubelet's services. A daemon that nobody asks for pods does not load them: the first call does, or pods that are there already,
 * which need somebody to read their output and to notice their end.
 */
export async function startCri(given: CriParts): Promise<readonly ServiceBinding[]> {
  const { parts, exchange, metadata, tasks, transfers, version, stack } = given;
  const images = await parts.start(
    { type: PluginType.cri, id: "images" },
    { metadata, transfers },
    (needed) => ({ ...needed.metadata, transfers: needed.transfers }),
  );
  const runtime = await parts.start(
    { type: PluginType.cri, id: "runtime" },
    { tasks },
    (needed) => needed.tasks,
  );
  const bindings = await parts.start(
    { type: PluginType.grpc, id: "cri" },
    { images, runtime, exchange },
    (needed) => {
      const cri = lazily(() => open(given, needed.images, needed.runtime, needed.exchange));
      stack.defer(async () => await (await cri.opened)?.close());
      void loadForPods(needed.images, cri.get, given.logger);
      const calls = async (): Promise<CriCalls> => (await cri.get()).calls;
      const imageCalls = async () => (await cri.get()).imageCalls;
      return [runtimeService({ calls, version }), imageService({ calls: imageCalls })];
    },
  );
  return bindings ?? [];
}

async function open(
  { parts, config, logger, clock }: CriParts,
  stores: Metadata & Pick<CriDependencies, "transfers">,
  tasks: TaskStore,
  events: Exchange,
): Promise<OpenCri> {
  const { openCri } = await import("../cri/open.ts");
  const folder = `${PluginType.grpc}.cri`;
  const folders = { root: join(config.root, folder), state: join(config.state, folder) };
  const snapshotterRoots = new Map(
    parts
      .list()
      .filter(({ type }) => type === PluginType.snapshotter)
      .map(({ id, exports }) => [id, exports["root"] ?? ""]),
  );
  const dependencies = { ...stores, tasks, events, snapshotterRoots, clock, logger };
  return await openCri({ config: config.cri, folders }, dependencies);
}

async function loadForPods(
  { containers, sandboxes }: Metadata,
  load: () => Promise<unknown>,
  logger: Logger,
): Promise<void> {
  try {
    const scope = { namespace: NAMESPACE };
    const [pods, others] = await Promise.all([containers.list(scope), sandboxes.list(scope)]);
    if (pods.length + others.length > 0) await load();
  } catch (error) {
    logger.error("failed to take over pods", { error: messageOf(error) });
  }
}
