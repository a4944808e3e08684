import { readFileSync } from "node:fs";
import { join } from "node:path";
import { unpackSpec } from "../../client/spec.ts";
import { messageOf } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import type { Spec } from "../spec/spec.ts";

const CGROUPS = "/sys/fs/cgroup";

/**
 * True if the kernel has killed a process of the container for its memory, as far as its cgroup can still tell. The event of it may come
 * after the container's end has been seen.
 */
export async function wasOutOfMemory({ stores, host, logger }: Cri, id: string): Promise<boolean> {
  const record = await stores.containers.get(scopeOf(), id).catch((error: unknown) => {
    logger.debug("cannot tell whether a container ended for its memory", { id, error: messageOf(error) });
    return undefined;
  });
  if (record?.spec === undefined) return false;
  const path = (unpackSpec(record.spec) as Spec).linux.cgroupsPath ?? "";
  const file = host.unifiedCgroups
    ? join(CGROUPS, path, "memory.events")
    : join(CGROUPS, "memory", path, "memory.oom_control");
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync(file, "utf8"))?.[1] ?? 0) > 0;
  } catch {
    // The cgroup went with its last process.
    return false;
  }
}
