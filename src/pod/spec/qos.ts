/** Quality-of-service class, OOM score and cgroup: `pkg/apis/core/v1/helper/qos`, `pkg/kubelet/qos/policy.go`, `pkg/kubelet/cm`. */
import type { Container, Resources } from "../api/container.ts";
import type { Pod, PodSpec } from "../api/pod.ts";
import { addQuantities, compareQuantities, wholeValueOf } from "../api/quantity.ts";
import type { AnyContainer } from "../api/validate-container.ts";

export type QosClass = "Guaranteed" | "Burstable" | "BestEffort";

type Amounts = Readonly<Record<string, string>>;

const COMPUTE = ["cpu", "memory"] as const;

/** Requests as the API server completes them: a limit without a request is its own request. */
export function requestsOf(resources: Resources | undefined): Amounts {
  return { ...resources?.limits, ...resources?.requests };
}

export function limitsOf(resources: Resources | undefined): Amounts {
  return resources?.limits ?? {};
}

export function qosClass({ containers, initContainers = [], resources }: PodSpec): QosClass {
  const all: readonly (Resources | undefined)[] =
    resources === undefined ? [...containers, ...initContainers].map((each) => each.resources) : [resources];
  const set = (amounts: Amounts, name: string): boolean => compareQuantities(amounts[name] ?? "0", "0") > 0;
  const names = (of: (resources: Resources | undefined) => Amounts): boolean =>
    all.some((each) => COMPUTE.some((name) => set(of(each), name)));
  if (!names(requestsOf) && !names(limitsOf)) return "BestEffort";
  const guaranteed = all.every((each) =>
    COMPUTE.every((name) => {
      const [request = "0", limit = "0"] = [requestsOf(each)[name], limitsOf(each)[name]];
      return compareQuantities(limit, "0") > 0 && compareQuantities(request, limit) === 0;
    }),
  );
  return guaranteed ? "Guaranteed" : "Burstable";
}

const GUARANTEED_SCORE = -997;
const BEST_EFFORT_SCORE = 1000;

export function oomScoreAdj(spec: PodSpec, container: AnyContainer, memoryCapacityBytes: bigint): number {
  if (spec.priorityClassName === "system-node-critical") return GUARANTEED_SCORE;
  const qos = qosClass(spec);
  if (qos === "Guaranteed") return GUARANTEED_SCORE;
  if (qos === "BestEffort") return BEST_EFFORT_SCORE;
  const requested = ({ resources }: Partial<Container>): bigint =>
    wholeValueOf(requestsOf(resources)["memory"] ?? "0");
  const score = (bytes: bigint): number => 1000 - Number((1000n * bytes) / memoryCapacityBytes);
  const own = container as Partial<Container>;
  let adjust = score(requested(own));
  const sidecar = spec.initContainers?.some(
    ({ name, restartPolicy }) => restartPolicy === "Always" && name === own.name,
  );
  if (sidecar === true) {
    const scores = spec.containers.map((each) => score(requested(each)));
    adjust = Math.min(adjust, Math.max(...scores));
  }
  if (adjust < 1000 + GUARANTEED_SCORE) return 1000 + GUARANTEED_SCORE;
  return adjust === BEST_EFFORT_SCORE ? BEST_EFFORT_SCORE - 1 : adjust;
}

/** The path of a pod's cgroup below the root, one name a level: `pkg/kubelet/cm/pod_container_manager_linux.go`. */
export function cgroupNames(pod: Pod): readonly string[] {
  const qos = qosClass(pod.spec);
  const level = qos === "Guaranteed" ? [] : [qos.toLowerCase()];
  return ["kubepods", ...level, `pod${pod.metadata.uid}`];
}

/** As CRI's `cgroup_parent` wants it for the runtime's driver. */
export function cgroupParent(pod: Pod, driver: "cgroupfs" | "systemd"): string {
  const names = cgroupNames(pod);
  if (driver === "cgroupfs") return `/${names.join("/")}`;
  const escaped = names.map((name) => name.replaceAll("-", "_"));
  const slices = escaped.map((_, index) => `${escaped.slice(0, index + 1).join("-")}.slice`);
  return `/${slices.join("/")}`;
}

/** What the whole pod may use: its own field, else the sum of its containers against what its init containers need one after another. */
export function podAmounts(spec: PodSpec, of: (resources: Resources | undefined) => Amounts): Amounts {
  const add = (left: Amounts, right: Amounts): Amounts => {
    const sum: Record<string, string> = { ...left };
    for (const [name, amount] of Object.entries(right)) sum[name] = addQuantities(sum[name] ?? "0", amount);
    return sum;
  };
  let total = spec.containers.map(({ resources }) => of(resources)).reduce(add, {});
  let sidecars: Amounts = {};
  let most: Amounts = {};
  for (const { resources, restartPolicy } of spec.initContainers ?? []) {
    const own = add(sidecars, of(resources));
    if (restartPolicy === "Always") sidecars = own;
    most = larger(most, own);
  }
  total = larger(add(total, sidecars), most);
  return { ...total, ...of(spec.resources) };
}

function larger(left: Amounts, right: Amounts): Amounts {
  const result: Record<string, string> = { ...left };
  for (const [name, amount] of Object.entries(right)) {
    if (compareQuantities(amount, result[name] ?? "0") > 0) result[name] = amount;
  }
  return result;
}
