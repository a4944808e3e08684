import type { Config } from "../config/config.ts";
import { openDiffer } from "../diff/differ.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { Differ } from "../model/diff.ts";
import { BunkerdError } from "../model/errors.ts";
import { platformOf } from "../model/platforms.ts";
import type { DiffService } from "../services/diff.ts";
import { inUserNamespace } from "../snapshots/overlay-support.ts";
import { type Parts, PluginType } from "./parts.ts";
import type { Proxies } from "./proxies.ts";

export interface Differs {
  /** Those that run, by name. */
  readonly differs: ReadonlyMap<string, Differ>;
  readonly service: DiffService | undefined;
}

/** The differ, and the service's choice of differs. A differ that is not there is passed over, as long as one
 * is. @throws InvalidArgument otherwise */
export async function startDiff(
  parts: Parts,
  config: Config,
  metadata: Metadata | undefined,
  proxies: Proxies,
): Promise<Differs> {
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const platforms = [platformOf("linux", architecture)];
  const walking = await parts.start(
    { type: PluginType.differ, id: "walking", platforms },
    { metadata },
    (given) =>
      openDiffer({
        content: given.metadata.content,
        processors: config.streamProcessors,
        inUserNamespace: inUserNamespace(),
      }),
  );
  const running = new Map<string, Differ>(walking === undefined ? [] : [["walking", walking]]);
  await proxies.startDiffers(running);
  parts.group(PluginType.differ, running);
  const differs = running.size === 0 ? undefined : running;
  const service = await parts.start({ type: PluginType.service, id: "diff-service" }, { differs }, () => {
    const { differs: wanted, syncFs } = config.diff;
    const chosen = wanted.flatMap((name) => running.get(name) ?? []);
    if (chosen.length === 0)
      throw new BunkerdError("InvalidArgument", `needed differ not loaded: ${wanted.join(", ")}`);
    return { differs: chosen, syncFs };
  });
  return { differs: running, service };
}
