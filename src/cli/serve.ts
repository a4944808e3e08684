import { type Config, isFatal, type Problem } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { serve } from "../daemon/serve.ts";
import type { Logger } from "../lib/log.ts";
import { createLogger } from "../lib/log-lines.ts";
import { BunkerdError } from "../model/errors.ts";
import { type GlobalOptions, loadOptionsOf } from "./options.ts";
import { REVISION, VERSION } from "./version.ts";

/** Runs the daemon until a signal stops it. @throws what the configuration or the start of a part throws */
export async function runServe(options: GlobalOptions): Promise<void> {
  const startedAt = performance.now();
  const { config, problems } = loadConfig(loadOptionsOf(options));
  refuseFatal(problems);
  const logger = createLogger({ level: config.logLevel, format: config.logFormat });
  logProblems(problems, logger);
  const reload = (): Config => {
    const loaded = loadConfig(loadOptionsOf(options));
    refuseFatal(loaded.problems);
    return loaded.config;
  };
  await serve(config, { logger, version: VERSION, revision: REVISION, reload, startedAt });
}

/** @throws InvalidArgument with the first of the problems that the daemon cannot start with */
function refuseFatal(problems: readonly Problem[]): void {
  const fatal = problems.filter(({ kind }) => isFatal(kind));
  const first = fatal[0];
  if (first === undefined) return;
  const more = fatal.length > 1 ? ` (and ${fatal.length - 1} more: bunkerd config check)` : "";
  throw new BunkerdError("InvalidArgument", `${first.message}${more}`);
}

/** One line for all keys of one unbuilt part, one for each other problem. */
function logProblems(problems: readonly Problem[], logger: Logger): void {
  const unbuilt = new Map<string, string[]>();
  for (const { kind, place, message, part } of problems) {
    if (kind !== "unbuilt" || part === undefined) logger.warn(`config: ${message}`);
    else unbuilt.set(part, [...(unbuilt.get(part) ?? []), place]);
  }
  for (const [part, places] of unbuilt) {
    logger.warn(`config: settings have no effect: ${part} is not built yet`, { settings: places.join(", ") });
  }
}
