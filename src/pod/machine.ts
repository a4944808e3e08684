/** Facts of this machine that pods learn. */
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, hostname, networkInterfaces, totalmem } from "node:os";
import type { CriClient } from "../client/cri.ts";
import { isError } from "../model/errors.ts";
import type { Node } from "./spec/node.ts";

export async function observeNode(cri: CriClient): Promise<Node> {
  const asked = driverOf(cri);
  // It is awaited below, after others that may throw.
  asked.catch(() => undefined);
  const seen = {
    hostname: hostname().toLowerCase(),
    hostIps: hostIps(),
    memoryCapacityBytes: BigInt(totalmem()),
    cpuCount: availableParallelism(),
    resolvConf: textOf("/etc/resolv.conf"),
    hostsFile: textOf("/etc/hosts"),
    hugePageSizes: hugePageSizes(),
  };
  return { ...seen, cgroupDriver: await asked };
}

/** Runtimes that do not tell want what kubelets have by default. */
async function driverOf(cri: CriClient): Promise<Node["cgroupDriver"]> {
  try {
    return await cri.cgroupDriver();
  } catch (error) {
    if (isError(error, "Unimplemented")) return "cgroupfs";
    throw error;
  }
}

/** The first address of each family that is not the machine talking to itself. */
function hostIps(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const outside = all.filter(({ internal, address }) => !internal && !address.startsWith("fe80:"));
  const first = (family: string): string[] =>
    outside
      .filter((each) => each.family === family)
      .slice(0, 1)
      .map(({ address }) => address);
  return [...first("IPv4"), ...first("IPv6")];
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}

/** As runc writes sizes: `2MB`, `1GB`. */
function hugePageSizes(): string[] {
  let names: string[];
  try {
    names = readdirSync("/sys/kernel/mm/hugepages");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  return names.map((name) => {
    const kilobytes = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0);
    if (kilobytes >= 1 << 20) return `${kilobytes >> 20}GB`;
    return kilobytes >= 1 << 10 ? `${kilobytes >> 10}MB` : `${kilobytes}KB`;
  });
}
