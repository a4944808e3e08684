/**
 * Pods from YAML, as root; part of `make bench`, alone `bun bench/pods.ts` (`ROUNDS`, `PARTS` of `first-line,many,probes`, `PROBED` pods, `PROBE_SECONDS`;
 * 300 is what the target is told for). `pod run` until its first log line beside `podman kube play` and beside a client that is connected and makes the same calls; ten pods of
 * one file on our socket beside containerd's; probes: see `pod-probes.ts`.
 */
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Mount, MountSchema } from "#gen/runtime/v1/api_pb.ts";
import { type CriClient, criClient } from "../src/client/cri.ts";
import { parseManifest } from "../src/pod/api/manifest.ts";
import type { Pod } from "../src/pod/api/pod.ts";
import { observeNode } from "../src/pod/machine.ts";
import { addMounts, containerConfig } from "../src/pod/spec/container-config.ts";
import { POD_NAME } from "../src/pod/spec/labels.ts";
import { sandboxConfig } from "../src/pod/spec/sandbox-config.ts";
import { removeCgroup } from "../test/support/cri-traces.ts";
import { podText } from "../test/support/pod-text.ts";
import { type PodNode, startPodNode } from "../test/support/pods.ts";
import { figure, printFigures, progress, type Side, sidesOf } from "./figures.ts";
import { measureProbes } from "./pod-probes.ts";
import { type Podman, startPodman } from "./podman.ts";

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

async function firstLine(log: string): Promise<void> {
  while (!existsSync(log) || statSync(log).size === 0) await Bun.sleep(1);
}

/** What `pod run` asks of the runtime for the same pod, by a client that is connected. */
async function bareClient(node: PodNode, name: string): Promise<number> {
  const cri = criClient(node.daemon.socket);
  await cri.version();
  const [file] = parseManifest(podText(name, { app: SCRIPT }), name).pods;
  if (file === undefined) throw new Error("no pod");
  const metadata = { name, namespace: "default", uid: name, labels: {}, annotations: {} };
  const logDirectory = join(node.folder, "bare", name);
  mkdirSync(logDirectory, { recursive: true });
  const mounts = ["etc-hosts:/etc/hosts", "message:/dev/termination-log"].map((text): Mount => {
    const [host = "", containerPath = ""] = text.split(":");
    const hostPath = join(logDirectory, host);
    writeFileSync(hostPath, "");
    return create(MountSchema, { hostPath, containerPath });
  });
  const startedAt = performance.now();
  const { id, container, cgroup } = await bareCalls(cri, { metadata, spec: file.spec }, logDirectory, mounts);
  await firstLine(join(logDirectory, "app/0.log"));
  const took = performance.now() - startedAt;
  await cri.stopContainer(container, 0);
  await cri.removeContainer(container);
  await cri.stopPodSandbox(id);
  await cri.removePodSandbox(id);
  removeCgroup(cgroup);
  cri.close();
  return took;
}

async function bareCalls(
  cri: CriClient,
  pod: Pod,
  logDirectory: string,
  mounts: readonly Mount[],
): Promise<{ id: string; container: string; cgroup: string }> {
  const [app] = pod.spec.containers;
  if (app === undefined) throw new Error("no container");
  const node = await observeNode(cri);
  await cri.listPodSandbox({ labelSelector: { [POD_NAME]: pod.metadata.name } });
  const sandbox = sandboxConfig({ pod, node, attempt: 0, logDirectory, userNamespace: undefined });
  const [id, image] = await Promise.all([cri.runPodSandbox(sandbox, ""), cri.imageStatus("box:1")]);
  await cri.podSandboxStatus(id);
  mkdirSync(join(logDirectory, "app"));
  const config = containerConfig({
    ...{ pod, node, container: app, restartCount: 0, imageRef: image?.id ?? "", env: new Map() },
    ...{ imageUser: { uid: 0n, username: "" }, userNamespace: undefined, targetId: undefined },
  });
  addMounts(config, mounts, undefined);
  const container = await cri.createContainer(id, config, sandbox);
  await cri.startContainer(container);
  return { id, container, cgroup: sandbox.linux?.cgroupParent ?? "" };
}

async function measureFirstLine(node: PodNode, podman: Podman, rounds: number): Promise<void> {
  progress("pod run until its first log line");
  const beside = (what: string, atMost: number) =>
    figure(`pod run until its first log line (right: ${what})`, "ms", { atMost });
  const play = beside("podman kube play", 0.8);
  const bare = beside("the same CRI calls alone", 1.2);
  for (let round = 0; round <= rounds; round++) {
    await Bun.sleep(SETTLE_MS);
    const run = await podRun(node, `run${round}`);
    await Bun.sleep(SETTLE_MS);
    const played = await kubePlay(podman, node.folder, `play${round}`);
    await Bun.sleep(SETTLE_MS);
    const called = await bareClient(node, `bare${round}`);
    // The first of each warms up.
    if (round === 0) continue;
    for (const { samples } of [play, bare]) samples.ours.push(run);
    play.samples.containerd.push(played);
    bare.samples.containerd.push(called);
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
    await using ours = await startPodNode("bunkerd");
    await using podman = await startPodman(ours.boxArchive);
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
