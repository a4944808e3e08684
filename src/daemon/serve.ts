import type { Config } from "../config/config.ts";
import type { LineLogger } from "../lib/log-lines.ts";
import { startDaemon } from "./daemon.ts";
import { releaseMemoryWhenIdle } from "./idle.ts";
import { notifyServiceManager } from "./notify.ts";
import { handleSignals } from "./signals.ts";

export interface ServeOptions {
  readonly logger: LineLogger;
  readonly version: string;
  readonly revision: string;
  /** Reads the configuration again, for SIGHUP. @throws what a wrong configuration throws */
  readonly reload: () => Config;
  /** `performance.now()` of the start. */
  readonly startedAt: number;
}

/** Runs a daemon from its start to the signal that stops it. @throws what a part throws that cannot start */
export async function serve(config: Config, options: ServeOptions): Promise<void> {
  const { logger, version, revision, startedAt } = options;
  const stopped = Promise.withResolvers<NodeJS.Signals>();
  let dump = (): unknown => ({ phase: "starting" });
  const signals = handleSignals(
    {
      stop: (signal) => stopped.resolve(signal),
      reload: () => void reload(options),
      dump: () => logger.info("state", { state: dump() }),
    },
    logger,
  );
  try {
    logger.info("starting bunkerd", { version, revision });
    await using daemon = await startDaemon(config, options);
    dump = () => daemon.state();
    // The executable starts as commands want it (`build/compile.ts`), and so does the daemon; what it does from here on it does often.
    Bun.unsafe.setJITPolicy(1);
    await notifyServiceManager("READY=1", logger);
    logger.info(`bunkerd successfully booted in ${((performance.now() - startedAt) / 1000).toFixed(6)}s`);
    const idle = releaseMemoryWhenIdle(logger);
    const signal = await stopped.promise;
    idle.close();
    logger.info("stopping", { signal });
    await notifyServiceManager("STOPPING=1", logger);
  } finally {
    signals.close();
  }
  logger.info("stopped");
}

/** Takes over the level and format of the log; all else needs a restart. A wrong file leaves everything as it is. */
async function reload({ logger, reload: load }: ServeOptions): Promise<void> {
  await notifyServiceManager("RELOADING=1", logger);
  try {
    const { logLevel, logFormat } = load();
    logger.level = logLevel;
    logger.format = logFormat;
    logger.info("reloaded configuration: the log level and format took effect", { level: logLevel });
  } catch (error) {
    logger.error("reload of the configuration failed, nothing changed", { error });
  }
  await notifyServiceManager("READY=1", logger);
}
