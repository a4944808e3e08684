import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, normalize } from "node:path";
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

/** On cgroup v2 the cgroup must exist; on v1 it is made in every hierarchy that there is (containerd `cmd/containerd/server`). */
function enterCgroup(path: string): void {
  try {
    if (existsSync(join(CGROUP_ROOT, "cgroup.controllers"))) enter(join(CGROUP_ROOT, path));
    else for (const hierarchy of readdirSync(CGROUP_ROOT)) makeAndEnter(hierarchy, path);
  } catch (error) {
    throw new BunkerdError("FailedPrecondition", `cgroup.path ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function makeAndEnter(hierarchy: string, path: string): void {
  const parent = join(CGROUP_ROOT, hierarchy);
  // v2's own holds no controller beside those of v1.
  if (hierarchy === "unified" || !existsSync(join(parent, "cgroup.procs"))) return;
  mkdirSync(join(parent, path), { recursive: true });
  if (hierarchy.split(",").includes("cpuset")) inheritCpus(parent, path);
  enter(join(parent, path));
}

function enter(cgroup: string): void {
  writeFileSync(join(cgroup, "cgroup.procs"), String(process.pid));
}

/** A new cpuset has neither processors nor memory, and takes no process before it has. */
function inheritCpus(parent: string, path: string): void {
  let above = parent;
  for (const name of normalize(path).split("/").filter(Boolean)) {
    const cgroup = join(above, name);
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      if (readFileSync(join(cgroup, file), "utf8").trim() === "")
        writeFileSync(join(cgroup, file), readFileSync(join(above, file)));
    }
    above = cgroup;
  }
}
