import { join } from "node:path";
import { Db } from "../bolt/db.ts";
import type { Config } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { MountHandler } from "../model/mounts.ts";
import { Activations } from "../mounts/activations.ts";
import { loopHandler } from "../mounts/handlers.ts";
import { createDirectory } from "./directories.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface MountParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metadata: Metadata | undefined;
  readonly stack: AsyncDisposableStack;
}

/** What mounts by name; what an earlier daemon left half done is taken away first. */
export async function startMounts(given: MountParts): Promise<Activations | undefined> {
  const { parts, config, logger, clock, metadata, stack } = given;
  const handlers = new Map<string, MountHandler>();
  const loop = await parts.start({ type: PluginType.mountHandler, id: "loop" }, {}, () => loopHandler);
  if (loop !== undefined) handlers.set("loop", loop);
  return await parts.start({ type: PluginType.mountManager, id: "bolt" }, { metadata }, async (needed) => {
    const folder = join(config.state, `${PluginType.mountManager}.bolt`);
    createDirectory("mounts", folder, 0o700);
    const db = Db.open(join(folder, "mounts.db"), { syncFreelist: true });
    const options = { db, targets: join(folder, "t"), roots: [config.root], handlers, clock, logger };
    const activations = new Activations(options);
    stack.defer(() => activations.close());
    await activations.recover();
    needed.metadata.collector.register("mount", activations);
    return activations;
  });
}
