/** The cgroup that holds a pod's containers, with what the pod as a whole may use: `pkg/kubelet/cm`, `ResourceConfigForPod`. */
import { existsSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Pod } from "./api/pod.ts";
import { addQuantities, milliValueOf, wholeValueOf } from "./api/quantity.ts";
import type { Node } from "./spec/node.ts";
import { cgroupParent, limitsOf, podAmounts, qosClass, requestsOf } from "./spec/qos.ts";
import { milliCpuToQuota, milliCpuToShares } from "./spec/resources.ts";

const ROOT = "/sys/fs/cgroup";
const PERIOD_MICROSECONDS = 100_000n;

export interface PodLimits {
  readonly shares: bigint;
  /** Undefined: none. */
  readonly quota: bigint | undefined;
  readonly memoryBytes: bigint | undefined;
}

/** What the runtime itself takes for such a pod comes on top of what its containers may use. A limit holds for the pod only if each of its containers has one, or the pod has one of its own. */
export function podLimits({ spec }: Pod): PodLimits {
  if (qosClass(spec) === "BestEffort") return { shares: 2n, quota: undefined, memoryBytes: undefined };
  const limits = podAmounts(spec, limitsOf);
  const withOverhead = (name: string, amount = "0"): string =>
    addQuantities(amount, spec.overhead?.[name] ?? "0");
  const all = [...spec.containers, ...(spec.initContainers ?? [])];
  const declared = (name: string): boolean =>
    spec.resources?.limits?.[name] !== undefined ||
    all.every(({ resources }) => resources?.limits?.[name] !== undefined);
  return {
    shares: milliCpuToShares(milliValueOf(withOverhead("cpu", podAmounts(spec, requestsOf)["cpu"]))),
    quota: declared("cpu") ? milliCpuToQuota(milliValueOf(withOverhead("cpu", limits["cpu"]))) : undefined,
    memoryBytes: declared("memory") ? wholeValueOf(withOverhead("memory", limits["memory"])) : undefined,
  };
}

/** Sets the limits of the cgroup, which the runtime has made with the sandbox. @throws ErrnoException */
export function limitPodCgroup(pod: Pod, node: Pick<Node, "cgroupDriver">): void {
  setLimits(pod, node, podLimits(pod));
}

/** Before a pod's containers are resized: no container may have more than its pod, neither before nor after. @throws ErrnoException */
export function widenPodCgroup(earlier: Pod, pod: Pod, node: Pick<Node, "cgroupDriver">): void {
  const [before, after] = [podLimits(earlier), podLimits(pod)];
  setLimits(pod, node, {
    shares: after.shares,
    quota: larger(before.quota, after.quota),
    memoryBytes: larger(before.memoryBytes, after.memoryBytes),
  });
}

/** Undefined, which is left alone, if one of them is: the cgroup has no limit yet. */
function larger(left: bigint | undefined, right: bigint | undefined): bigint | undefined {
  if (left === undefined || right === undefined) return undefined;
  return left > right ? left : right;
}

function setLimits(
  pod: Pod,
  { cgroupDriver }: Pick<Node, "cgroupDriver">,
  { shares, quota, memoryBytes }: PodLimits,
): void {
  const path = cgroupParent(pod, cgroupDriver);
  if (isUnified()) {
    const folder = join(ROOT, path);
    // From 2..262144 to 1..10000, as runc converts.
    set(folder, "cpu.weight", 1n + ((shares - 2n) * 9999n) / 262_142n);
    if (quota !== undefined) set(folder, "cpu.max", `${quota} ${PERIOD_MICROSECONDS}`);
    if (memoryBytes !== undefined) set(folder, "memory.max", memoryBytes);
    return;
  }
  set(join(ROOT, "cpu", path), "cpu.shares", shares);
  if (quota !== undefined) set(join(ROOT, "cpu", path), "cpu.cfs_quota_us", quota);
  if (memoryBytes !== undefined) set(join(ROOT, "memory", path), "memory.limit_in_bytes", memoryBytes);
}

/** A machine without the controller, or a runtime that put the pod elsewhere, has nothing to be set. */
function set(folder: string, file: string, value: bigint | string): void {
  if (existsSync(join(folder, file))) writeFileSync(join(folder, file), String(value));
}

function isUnified(): boolean {
  return existsSync(join(ROOT, "cgroup.controllers"));
}

/** Takes the empty cgroup away in each hierarchy; slices go by systemd. @throws ErrnoException */
export function removePodCgroup(pod: Pod): void {
  const path = cgroupParent(pod, "cgroupfs");
  const roots = isUnified() ? [ROOT] : readdirSync(ROOT).map((name) => join(ROOT, name));
  for (const root of roots) {
    try {
      rmdirSync(join(root, path));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (!["ENOENT", "EBUSY", "ENOTEMPTY", "ENOTDIR"].includes(code ?? "")) throw error;
    }
  }
}
