/**
 * Pods from YAML, as root; part of `make bench`, alone `bun bench/pods.ts` (`ROUNDS`, `PARTS` of `first-line,many,probes`, `PROBED` pods, `PROBE_SECONDS`;
 * 300 is what the target is told for). `pod run` until its first log line beside `podman kube play`, beside a program that makes the same calls and nothing else, each from its
 * start (`CRICTL=program`: beside `crictl run` too), and beside a client that is connected; ten pods of one file on our socket beside containerd's; probes: see `pod-probes.ts`.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../build/compile.ts";
import { type CriClient, criClient } from "../src/client/cri.ts";
import { parseManifest } from "../src/pod/api/manifest.ts";
import type { Pod } from "../src/pod/api/pod.ts";
import { removeCgroup } from "../test/support/cri-traces.ts";
import { podText } from "../test/support/pod-text.ts";
import { type PodNode, startPodNode } from "../test/support/pods.ts";
import { type BarePod, bareCalls, bareMounts, firstLine } from "./bare-calls.ts";
import { crictlRun } from "./crictl-run.ts";
import { type Figure, figure, printFigures, progress, type Side, sidesOf } from "./figures.ts";
import { measureProbes } from "./pod-probes.ts";
import { type Podman, podmanParts, startPodman } from "./podman.ts";

const AT_ONCE = 10;
const SCRIPT = "echo begun; exec sleep 1000";

/** Started without the program that ends tests' processes with their test: it takes a millisecond, which is not the command's. */
const PIPES = { stdin: "ignore", stdout: "pipe", stderr: "inherit" } as const;

/** What the last pod's end leaves to do must not be part of the next one's start. */
const SETTLE_MS = 500;

async function podRun(node: PodNode, name: string): Promise<number> {
  const file = join(node.folder, `${name}.json`);
  writeFileSync(file, podText(name, { app: SCRIPT }));
  const startedAt = performance.now();
  const child = Bun.spawn([...node.podCommand(["run", "-q", "-f", file])], PIPES);
  await child.stdout.getReader().read();
  const took = performance.now() - startedAt;
  await node.pod(["rm", name, "--grace-period", "0"]);
  await child.exited;
  return took;
}

async function kubePlay(podman: Podman, folder: string, name: string): Promise<number> {
  const [file, log] = [join(folder, `${name}.json`), join(folder, `${name}.log`)];
  writeFileSync(file, podText(name, { app: SCRIPT }));
  const startedAt = performance.now();
  const child = podman.start(["kube", "play", "--log-driver", "k8s-file", "--log-opt", `path=${log}`, file]);
  await firstLine(log);
  const took = performance.now() - startedAt;
  await child.exited;
  const id = await podman.run(["pod", "rm", "--force", "--time", "0", name]);
  // It leaves those of hybrid hierarchies.
  removeCgroup(`/libpod_parent/${id.trim()}`);
  return took;
}

function podOf(name: string): Pod {
  const [file] = parseManifest(podText(name, { app: SCRIPT }), name).pods;
  if (file === undefined) throw new Error("no pod");
  return {
    metadata: { name, namespace: "default", uid: name, labels: {}, annotations: {} },
    spec: file.spec,
  };
}

/** A program that makes the same calls, from its start. */
async function bareProgram(node: PodNode, program: string, name: string): Promise<number> {
  const file = join(node.folder, `${name}.pod`);
  writeFileSync(file, JSON.stringify(podOf(name)));
  const startedAt = performance.now();
  const child = Bun.spawn([program, node.daemon.socket, file, join(node.folder, "bare", name)], PIPES);
  const { value } = await child.stdout.getReader().read();
  const took = performance.now() - startedAt;
  const cri = criClient(node.daemon.socket);
  await remove(cri, JSON.parse(new TextDecoder().decode(value)) as BarePod);
  cri.close();
  await child.exited;
  return took;
}

/** crictl, which makes fewer calls. */
async function goClient(node: PodNode, program: string, name: string): Promise<number> {
  const cri = criClient(node.daemon.socket);
  const { took, made } = await crictlRun(program, node, cri, podOf(name));
  await remove(cri, made);
  cri.close();
  return took;
}

/** A client that has been connected before, within a process that has made the same calls before. */
async function connectedClient(node: PodNode, name: string): Promise<number> {
  const cri = criClient(node.daemon.socket);
  await cri.version();
  const pod = podOf(name);
  const logDirectory = join(node.folder, "bare", name);
  const mounts = bareMounts(logDirectory);
  const startedAt = performance.now();
  const made = await bareCalls(cri, pod, logDirectory, mounts);
  const took = performance.now() - startedAt;
  await remove(cri, made);
  cri.close();
  return took;
}

async function remove(cri: CriClient, { id, container, cgroup }: BarePod): Promise<void> {
  await cri.stopContainer(container, 0);
  await cri.removeContainer(container);
  await cri.stopPodSandbox(id);
  await cri.removePodSandbox(id);
  removeCgroup(cgroup);
}

async function measureFirstLine(node: PodNode, podman: Podman, rounds: number): Promise<void> {
  progress("pod run until its first log line");
  const program = join(node.folder, "bare-client");
  await compile(program, "bench", ["bench/bare-client.ts"]);
  const crictl = process.env["CRICTL"];
  const beside = (what: string, target: Figure["target"]) =>
    figure(`pod run until its first log line (right: ${what})`, "ms", target);
  const compared = [
    {
      figure: beside("podman kube play", { atMost: 0.8 }),
      measure: (n: number) => kubePlay(podman, node.folder, `play${n}`),
    },
    {
      figure: beside("a program that makes the same CRI calls", { atMost: 1.2 }),
      measure: (n: number) => bareProgram(node, program, `bare${n}`),
    },
    {
      figure: beside("the same calls by a client connected and warm before", { atMost: 1.2 }),
      measure: (n: number) => connectedClient(node, `connected${n}`),
    },
    ...(crictl === undefined
      ? []
      : [
          {
            figure: beside("crictl run, the requests as JSON", { atMost: 1.2 }),
            measure: (n: number) => goClient(node, crictl, `crictl${n}`),
          },
        ]),
  ];
  for (let round = 0; round <= rounds; round++) {
    await Bun.sleep(SETTLE_MS);
    const run = await podRun(node, `run${round}`);
    for (const { figure, measure } of compared) {
      await Bun.sleep(SETTLE_MS);
      const took = await measure(round);
      // The first of each warms up.
      if (round === 0) continue;
      figure.samples.ours.push(run);
      figure.samples.containerd.push(took);
    }
  }
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

async function measureMany(nodes: Readonly<Record<Side, PodNode>>, rounds: number): Promise<void> {
  progress(`${AT_ONCE} pods of one file`);
  const many = figure(`${AT_ONCE} pods of one file, until all run`, "ms", { atMost: 0.8 });
  for (let round = 0; round <= rounds; round++) {
    for (const [side] of sidesOf(round)) {
      await Bun.sleep(SETTLE_MS);
      const took = await tenAtOnce(nodes[side], round);
      if (round > 0) many.samples[side].push(took);
    }
  }
}

const PARTS = (process.env["PARTS"] ?? "first-line,many,probes").split(",");

export async function measurePods(rounds: number): Promise<void> {
  if (PARTS.includes("first-line")) {
    const parts = await podmanParts();
    await using ours = await startPodNode("bunkerd");
    await using podman = await startPodman(parts, ours.boxArchive);
    await measureFirstLine(ours, podman, rounds);
  }
  if (PARTS.includes("many")) {
    await using ours = await startPodNode("bunkerd");
    await using containerd = await startPodNode("containerd-2.1");
    await measureMany({ ours, containerd }, rounds);
  }
  if (PARTS.includes("probes")) await measureProbes();
}

if (import.meta.main) {
  const rounds = Number(process.env["ROUNDS"] ?? 10);
  try {
    await measurePods(rounds);
  } finally {
    printFigures(rounds);
  }
}
