/**
 * CPU of a daemon whose pods' exec probes run every 10 s beside that of the probes' own processes (shims, runc, the command) in the same time:
 * pods of `pod run` on our socket and on containerd's, and pods of manifests that the daemon itself keeps and probes.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { podText } from "../test/support/pod-text.ts";
import { type PodNode, startPodNode } from "../test/support/pods.ts";
import { figure, progress } from "./figures.ts";

const PODS = Number(process.env["PROBED"] ?? 30);
const SECONDS = Number(process.env["PROBE_SECONDS"] ?? 60);
const TICKS_PER_SECOND = 100;
/** What starts leave to do: caches, collectors. */
const SETTLE_MS = 5000;

const PROBE = { livenessProbe: { exec: { command: ["true"] }, periodSeconds: 10 } };
const NAMES = Array.from({ length: PODS }, (_, n) => `probed${n}`);
const TEXTS = NAMES.map((name) => podText(name, { app: "echo begun; exec sleep 10000" }, {}, { app: PROBE }));

/** Of all its threads, and of its children that have ended and theirs. */
function cpuSeconds(pid: number): { own: number; children: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")
    .map(Number);
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15);
  return { own: (user + system) / TICKS_PER_SECOND, children: (childUser + childSystem) / TICKS_PER_SECOND };
}

/** The shims of a daemon: what they start, containers' processes among it, comes back to them. */
function shimsOf({ daemon }: PodNode): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid)) return false;
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return (words[0] ?? "").includes("containerd-shim") && words.includes(daemon.socket);
      } catch {
        return false;
      }
    });
}

interface Used {
  readonly daemon: number;
  readonly probes: number;
}

function usedBy(node: PodNode, shims: readonly number[]): Used {
  const probes = shims.map(cpuSeconds).reduce((sum, { own, children }) => sum + own + children, 0);
  return { daemon: cpuSeconds(node.daemon.pid).own, probes };
}

async function used(nodes: readonly PodNode[]): Promise<Used[]> {
  await Bun.sleep(SETTLE_MS);
  const shims = nodes.map(shimsOf);
  for (const found of shims) {
    if (found.length !== PODS) throw new Error(`${found.length} shims of ${PODS} pods`);
  }
  const before = nodes.map((node, index) => usedBy(node, shims[index] ?? []));
  await Bun.sleep(SECONDS * 1000);
  return nodes.map((node, index) => {
    const after = usedBy(node, shims[index] ?? []);
    const { daemon = 0, probes = 0 } = before[index] ?? {};
    return { daemon: after.daemon - daemon, probes: after.probes - probes };
  });
}

/** Pods by `pod run` beside the daemon; ends them. */
async function runBeside(node: PodNode): Promise<() => Promise<void>> {
  const child = node.startPod(["run", "-q", "-f", "-"], TEXTS.join("\n---\n"));
  const reader = child.stdout.getReader();
  for (let lines = 0; lines < PODS; ) {
    const { value, done } = await reader.read();
    if (done) throw new Error(await child.stderr.text());
    lines += Buffer.from(value).filter((byte) => byte === 10).length;
  }
  return async () => {
    child.kill("SIGKILL");
    await child.exited;
    await node.pod(["rm", ...NAMES, "--grace-period", "0"]);
  };
}

const NODE_MODE = "manifests";

function keepManifests({
  folder,
  podsRoot,
  logsRoot,
}: Pick<PodNode, "folder" | "podsRoot" | "logsRoot">): string {
  const manifests = join(folder, NODE_MODE);
  mkdirSync(manifests);
  const keys = { manifests, pods_root: podsRoot, logs_root: logsRoot };
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return ['[plugins."io.bunkerd.node.v1.pods"]', ...lines].join("\n");
}

/** Pods that the daemon keeps; ends them. */
async function keep(node: PodNode): Promise<() => Promise<void>> {
  const path = (name: string): string => join(node.folder, NODE_MODE, `${name}.yaml`);
  NAMES.forEach((name, index) => void writeFileSync(path(name), TEXTS[index] ?? ""));
  const count = async (phase: string): Promise<number> => {
    const { items } = JSON.parse((await node.pod(["ls", "-o", "json"])).stdout) as {
      items: { status: { phase: string } }[];
    };
    return items.filter(({ status }) => status.phase.startsWith(phase)).length;
  };
  while ((await count("Running")) < PODS) await Bun.sleep(500);
  return async () => {
    for (const name of NAMES) rmSync(path(name));
    while ((await count("")) > 0) await Bun.sleep(500);
  };
}

export async function measureProbes(): Promise<void> {
  const what = `${PODS} pods, an exec probe each every 10 s, ${SECONDS} s: CPU of the daemon`;
  progress(what);
  const target = { atMost: 0.5 };
  const beside = figure(`${what} (right: the probes' processes)`, "s", target);
  const keeping = figure(`the same, the daemon keeps and probes the pods itself`, "s", target);
  const theirs = figure(`${what} (right: containerd's)`, "s", undefined);
  await using ours = await startPodNode("bunkerd");
  await using keeper = await startPodNode("bunkerd", keepManifests);
  await using containerd = await startPodNode("containerd-2.1");
  const ends = [await runBeside(ours), await keep(keeper), await runBeside(containerd)];
  const [run, kept, reference] = await used([ours, keeper, containerd]);
  for (const end of ends) await end();
  if (run === undefined || kept === undefined || reference === undefined)
    throw new Error("nothing was measured");
  beside.samples.ours.push(run.daemon);
  beside.samples.containerd.push(run.probes);
  keeping.samples.ours.push(kept.daemon);
  keeping.samples.containerd.push(kept.probes);
  theirs.samples.ours.push(run.daemon);
  theirs.samples.containerd.push(reference.daemon);
}
