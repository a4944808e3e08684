import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";

const CGROUP_ROOT = "/sys/fs/cgroup";

/** Settings of the daemon's own process. @throws FailedPrecondition if it cannot enter its cgroup */
export function applyProcessSettings(config: Pick<Config, "oomScore" | "cgroupPath">, logger: Logger): void {
  if (config.oomScore !== 0) setOomScore(config.oomScore, logger);
  if (config.cgroupPath !== "") enterCgroup(config.cgroupPath);
}

/** Lowering the score needs CAP_SYS_RESOURCE; without it the daemon runs on, as containerd does. */
function setOomScore(score: number, logger: Logger): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", String(score));
  } catch (error) {
    logger.warn(`failed to change OOM score to ${score}`, { error });
  }
}

/** The cgroup must exist, and the hierarchy be cgroup v2's unified one. */
function enterCgroup(path: string): void {
  if (!existsSync(join(CGROUP_ROOT, "cgroup.controllers"))) {
    throw new BunkerdError(
      "FailedPrecondition",
      `cgroup.path ${path}: ${CGROUP_ROOT} is not a cgroup v2 hierarchy`,
    );
  }
  try {
    writeFileSync(join(CGROUP_ROOT, path, "cgroup.procs"), String(process.pid));
  } catch (error) {
    throw new BunkerdError("FailedPrecondition", `cgroup.path ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
