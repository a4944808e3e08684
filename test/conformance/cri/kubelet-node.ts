/** A kubelet in standalone mode on a daemon, below a control group of its own: what it finds in another it would end. */
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Daemon } from "../../support/daemons.ts";
import { start } from "../../support/processes.ts";

/** The node's own address and that of its default route's device. */
export const NODE_ADDRESS = "10.89.0.1";
const READ_ONLY_PORT = 10_255;
/** How long pods may take to get there: the kubelet looks at manifests every second and backs off for ten. */
const PATIENCE_MS = 120_000;

const CGROUPS = "/sys/fs/cgroup";

/** In every hierarchy; removed with what pods have left in it. */
export function makeCgroupRoot(): Disposable & { readonly name: string } {
  const name = `bunkerd-kubelet-${process.pid}`;
  const unified = existsSync(join(CGROUPS, "cgroup.controllers"));
  const hierarchies = unified ? [CGROUPS] : readdirSync(CGROUPS).map((each) => join(CGROUPS, each));
  for (const hierarchy of hierarchies) {
    const path = join(hierarchy, name);
    mkdirSync(path);
    // A set without CPUs and memory takes no processes.
    for (const file of ["cpuset.cpus", "cpuset.mems"])
      if (!unified && existsSync(join(path, file)))
        writeFileSync(join(path, file), readFileSync(join(hierarchy, file)));
  }
  return {
    name: `/${name}`,
    [Symbol.dispose]() {
      for (const hierarchy of hierarchies) removeCgroups(join(hierarchy, name));
    },
  };
}

function removeCgroups(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroups(join(path, entry.name));
  rmdirSync(path);
}

function kubeletConfig(folder: string, daemon: Daemon, cgroupRoot: string): object {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    staticPodPath: join(folder, "manifests"),
    containerRuntimeEndpoint: `unix://${daemon.socket}`,
    podLogsDir: join(folder, "logs"),
    failCgroupV1: false,
    cgroupDriver: "cgroupfs",
    cgroupRoot,
    enforceNodeAllocatable: [],
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    address: "127.0.0.1",
    readOnlyPort: READ_ONLY_PORT,
    fileCheckFrequency: "1s",
    syncFrequency: "2s",
    failSwapOn: false,
    oomScoreAdj: 0,
    evictionHard: { "memory.available": "1Mi" },
    localStorageCapacityIsolation: false,
    makeIPTablesUtilChains: false,
  };
}

export interface Kubelet {
  kill(): Promise<void>;
}

/** @param folder holds all that is the kubelet's: `manifests`, `kubelet`, `kubelet.log` */
export function startKubelet(program: string, folder: string, daemon: Daemon, cgroupRoot: string): Kubelet {
  mkdirSync(join(folder, "manifests"), { recursive: true });
  writeFileSync(join(folder, "kubelet.json"), JSON.stringify(kubeletConfig(folder, daemon, cgroupRoot)));
  const log = openSync(join(folder, "kubelet.log"), "a");
  const flags = [
    `--config=${join(folder, "kubelet.json")}`,
    `--root-dir=${join(folder, "kubelet")}`,
    `--cert-dir=${join(folder, "pki")}`,
    "--hostname-override=node",
  ];
  const child = start([program, ...flags], { stdin: "ignore", stdout: log, stderr: log, cwd: folder });
  return {
    async kill() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

interface Ended {
  readonly reason: string;
  readonly exitCode: number;
  readonly message?: string;
}

/** What tests look at of a pod's status, as the kubelet serves it. */
export interface ContainerStatus {
  readonly name: string;
  readonly ready: boolean;
  readonly started?: boolean;
  readonly restartCount: number;
  readonly state: {
    readonly waiting?: { readonly reason: string; readonly message?: string };
    readonly running?: object;
    readonly terminated?: Ended;
  };
  readonly lastState: { readonly terminated?: Ended };
}

export interface PodStatus {
  readonly phase: string;
  readonly containers: readonly ContainerStatus[];
}

/** The status of a pod from a manifest; undefined as long as the kubelet tells none of each container. */
export async function podStatus(name: string): Promise<PodStatus | undefined> {
  const answer = await fetch(`http://127.0.0.1:${READ_ONLY_PORT}/pods`).catch(() => undefined);
  if (answer?.ok !== true) return undefined;
  const { items } = (await answer.json()) as { items: readonly Listed[] | null };
  const pod = items?.find(({ metadata }) => metadata.name === `${name}-node`);
  if (pod === undefined) return undefined;
  const { phase, containerStatuses = [] } = pod.status;
  return containerStatuses.length < pod.spec.containers.length
    ? undefined
    : { phase, containers: containerStatuses };
}

interface Listed {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly containers: readonly object[] };
  readonly status: { readonly phase: string; readonly containerStatuses?: readonly ContainerStatus[] };
}

/** @throws with what `explain` says when it does not come about */
export async function within<T>(
  what: string,
  found: () => Promise<T | undefined | false>,
  explain: () => string | Promise<string>,
): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await found();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`never: ${what}\n${await explain()}`);
    await Bun.sleep(100);
  }
}
