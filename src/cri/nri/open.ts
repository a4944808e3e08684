import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import { Nri, type NriDomain, type NriOptions } from "../../nri/nri.ts";
import { stopContainer } from "../containers/stop.ts";
import { applyUpdate } from "../containers/update.ts";
import type { Cri } from "../cri.ts";
import { containerMessage, podMessage, toCri } from "./messages.ts";

/** NRI over the pods and containers of CRI; `cri` is asked once there is one. Plugins come in by {@link startNri}. */
export function openNri(options: NriOptions, cri: () => Cri, logger: Logger): Nri {
  const domain: NriDomain = {
    listPods: () =>
      Promise.all(
        cri()
          .sandboxes.list()
          .filter(({ status }) => status.state !== "unknown")
          .map((sandbox) => podMessage(cri(), sandbox)),
      ),
    listContainers: () =>
      Promise.all(
        cri()
          .containers.list()
          .filter(({ status }) => LIVE.has(status.state))
          .map((container) => containerMessage(cri(), container)),
      ),
    async updateContainer({ containerId, linux }) {
      const container = cri().containers.find(containerId);
      if (container === undefined || linux?.resources === undefined) return;
      await applyUpdate(cri(), container, toCri(linux.resources), cri().closing);
    },
    async evictContainer({ containerId }) {
      const container = cri().containers.find(containerId);
      if (container !== undefined) await stopContainer(cri(), container, 0, cri().closing);
    },
  };
  return new Nri(options, { domain, logger });
}

const LIVE: ReadonlySet<ContainerState> = new Set([
  ContainerState.CONTAINER_CREATED,
  ContainerState.CONTAINER_RUNNING,
]);

/** Pods are served without plugins, too: what keeps NRI from starting is logged. */
export async function startNri({ nri, logger }: Cri): Promise<void> {
  try {
    await nri?.start();
  } catch (error) {
    logger.error("NRI does not run: no plugin can come in", { error: messageOf(error) });
  }
}
