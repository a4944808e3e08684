/**
 * Pods from YAML: `bun bench/pods.ts`, as root. `pod run` until its first log line beside a bare client that makes the same CRI calls on the same socket;
 * a file of ten pods on our socket beside containerd's; CPU of our daemon under exec probes beside that of the probes' own processes. `ROUNDS=2` makes it short.
 */
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ContainerConfigSchema, NamespaceMode, PodSandboxConfigSchema } from "#gen/runtime/v1/api_pb.ts";
import { criClient } from "../src/client/cri.ts";
import type { DaemonKind } from "../test/support/daemons.ts";
import { podText } from "../test/support/pod-text.ts";
import { type PodNode, startPodNode } from "../test/support/pods.ts";
import { median } from "./measurements.ts";

const ROUNDS = Number(process.env["ROUNDS"] ?? 10);
const AT_ONCE = 10;
const PROBED = Number(process.env["PROBED"] ?? 10);
const PROBE_SECONDS = Number(process.env["PROBE_SECONDS"] ?? 60);
const SCRIPT = "echo begun; exec sleep 1000";
const TICKS_PER_SECOND = 100;

async function podRun(node: PodNode, name: string): Promise<number> {
  const startedAt = performance.now();
  const child = node.startPod(["run", "-q", "-f", "-"], podText(name, { app: SCRIPT }));
  await child.stdout.getReader().read();
  const took = performance.now() - startedAt;
  await node.pod(["rm", name, "--grace-period", "0"]);
  await child.exited;
  return took;
}

/** The calls that `pod run` cannot do without, by a client that is connected. */
async function bareClient(node: PodNode, name: string): Promise<number> {
  const cri = criClient(node.daemon.socket);
  await cri.version();
  const logDirectory = join(node.folder, name);
  mkdirSync(logDirectory);
  const sandbox = create(PodSandboxConfigSchema, {
    metadata: { name, namespace: "bare", uid: name },
    logDirectory,
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
  });
  const startedAt = performance.now();
  const id = await cri.runPodSandbox(sandbox, "");
  const image = await cri.imageStatus("box:1");
  const config = create(ContainerConfigSchema, {
    metadata: { name: "app" },
    image: { image: image?.id ?? "" },
    command: ["sh", "-c", SCRIPT],
    logPath: "0.log",
    linux: {},
  });
  const container = await cri.createContainer(id, config, sandbox);
  await cri.startContainer(container);
  const log = join(logDirectory, "0.log");
  while (!existsSync(log) || statSync(log).size === 0) await Bun.sleep(1);
  const took = performance.now() - startedAt;
  await cri.stopContainer(container, 0);
  await cri.removeContainer(container);
  await cri.stopPodSandbox(id);
  await cri.removePodSandbox(id);
  cri.close();
  return took;
}

async function tenAtOnce(node: PodNode, round: number): Promise<number> {
  const names = Array.from({ length: AT_ONCE }, (_, n) => `r${round}n${n}`);
  const text = names.map((name) => podText(name, { app: SCRIPT })).join("\n---\n");
  const startedAt = performance.now();
  const applied = await node.pod(["apply", "-q", "-f", "-"], text);
  const took = performance.now() - startedAt;
  if (applied.code !== 0) throw new Error(applied.stderr);
  await node.pod(["rm", ...names, "--grace-period", "0"]);
  return took;
}

/** Seconds of CPU that a process has used, and its children that have ended. */
function cpuSeconds(pid: number): { own: number; children: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")
    .map(Number);
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15);
  return { own: (user + system) / TICKS_PER_SECOND, children: (childUser + childSystem) / TICKS_PER_SECOND };
}

/** The daemon's seconds under pods whose exec probes run every 10 s, by `pod run` beside it. */
async function underProbes(node: PodNode): Promise<number> {
  const probe = { livenessProbe: { exec: { command: ["true"] }, periodSeconds: 10 } };
  const names = Array.from({ length: PROBED }, (_, n) => `probed${n}`);
  const child = node.startPod(
    ["run", "-q", "-f", "-"],
    names.map((name) => podText(name, { app: SCRIPT }, {}, { app: probe })).join("\n---\n"),
  );
  let lines = 0;
  const reader = child.stdout.getReader();
  while (lines < PROBED)
    lines +=
      Buffer.from((await reader.read()).value ?? "")
        .toString()
        .split("\n").length - 1;
  await Bun.sleep(2000);
  const before = cpuSeconds(node.daemon.pid);
  await Bun.sleep(PROBE_SECONDS * 1000);
  const used = cpuSeconds(node.daemon.pid).own - before.own;
  child.kill("SIGKILL");
  await child.exited;
  await node.pod(["rm", ...names, "--grace-period", "0"]);
  return used;
}

async function on<T>(kind: DaemonKind, ask: (node: PodNode) => Promise<T>): Promise<T> {
  await using node = await startPodNode(kind);
  return await ask(node);
}

const print = (text: string): boolean => process.stdout.write(`${text}\n`);
const milliseconds = (samples: readonly number[]): string => `${median([...samples]).toFixed(0)} ms`;

await on("bunkerd", async (node) => {
  const [own, bare]: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const [one, other] = [await podRun(node, `run${round}`), await bareClient(node, `bare${round}`)];
    // The first of each warms up.
    if (round === 0) continue;
    own.push(one);
    bare.push(other);
  }
  print(
    `pod run until its first log line ${milliseconds(own)}, bare client ${milliseconds(bare)}, ratio ${(median(own) / median(bare)).toFixed(2)} (target 1.2)`,
  );
});
const many = async (node: PodNode): Promise<number[]> => {
  const samples: number[] = [];
  for (let round = 0; round < Math.max(2, ROUNDS / 2); round++) samples.push(await tenAtOnce(node, round));
  return samples;
};
const [ours, theirs] = [await on("bunkerd", many), await on("containerd-2.1", many)];
print(
  `${AT_ONCE} pods of one file: ours ${milliseconds(ours)}, containerd ${milliseconds(theirs)}, ratio ${(median(ours) / median(theirs)).toFixed(2)} (target 0.8)`,
);
const [mine, other] = [await on("bunkerd", underProbes), await on("containerd-2.1", underProbes)];
print(
  `${PROBED} pods with exec probes every 10 s, ${PROBE_SECONDS} s: CPU of our daemon ${mine.toFixed(2)} s, of containerd ${other.toFixed(2)} s, ratio ${(mine / other).toFixed(2)}`,
);
