import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { openBlobs } from "../content/blobs.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { BlobStore } from "../model/content.ts";
import { BunkerdError } from "../model/errors.ts";
import { type Parts, PluginType } from "./parts.ts";
import type { Proxies } from "./proxies.ts";

export interface ContentParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly proxies: Proxies;
}

const BUILT_IN = "content";

/**
 * The blob store, on this machine or of another process; or in containerd's words (`plugin.InitContext.GetSingle`) why metadata cannot be kept of
 * what runs: there is to be one.
 */
export async function startContent(given: ContentParts): Promise<BlobStore | BunkerdError> {
  const { parts, config, clock, logger, proxies } = given;
  const running: BlobStore[] = [];
  if (!proxies.has(PluginType.content, BUILT_IN)) {
    const root = join(config.root, `${PluginType.content}.${BUILT_IN}`);
    const name = { type: PluginType.content, id: BUILT_IN, exports: { root } };
    const local = await parts.start(name, {}, () => openBlobs({ root, clock, logger }));
    if (local !== undefined) running.push(local);
  }
  running.push(...(await proxies.startContent(clock)));
  const [only, ...more] = running;
  if (only !== undefined && more.length === 0) return only;
  const problem =
    only === undefined
      ? `no plugins registered for ${PluginType.content}: plugin: not found`
      : `multiple plugins registered for ${PluginType.content}: plugin: multiple instances`;
  return new BunkerdError("Unknown", problem);
}
