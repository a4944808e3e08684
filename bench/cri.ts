/**
 * CRI beside containerd 2.1 in one run: `bun bench/cri.ts`, as root. Pods of busybox on a CNI bridge in a network namespace of the bench's own, real
 * shim and runc. Prints medians and ours/containerd. `ROUNDS=3` and `CONTAINERS=100` make it short.
 */
import { readFileSync } from "node:fs";
import type { PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import {
  type CriDaemon,
  podConfig,
  prepareCri,
  removePods,
  runContainer,
  script,
  startCri,
} from "../test/support/cri.ts";
import type { DaemonKind } from "../test/support/daemons.ts";
import { enterHostNetwork } from "../test/support/netns.ts";
import { median } from "./measurements.ts";

const ROUNDS = Number(process.env["ROUNDS"] ?? 10);
/** Of which nothing runs: a list does not care. */
const CONTAINERS = Number(process.env["CONTAINERS"] ?? 500);
const AT_ONCE = 20;
const PODS = 50;
const IDLE_SECONDS = 20;
const KINDS: readonly DaemonKind[] = ["containerd-2.1", "bunkerd"];
const SLEEP = "while true; do sleep 1000; done";

interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly target: string;
  readonly samples: Map<DaemonKind, number[]>;
}

const figures: Figure[] = [];

function figure(name: string, unit: string, target: string): (kind: DaemonKind, value: number) => void {
  const samples = new Map(KINDS.map((kind) => [kind, [] as number[]]));
  figures.push({ name, unit, target, samples });
  return (kind, value) => void samples.get(kind)?.push(value);
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await run();
  return performance.now() - startedAt;
}

const both = new Map<DaemonKind, CriDaemon>();
async function inTurn(
  rounds: number,
  ask: (kind: DaemonKind, cri: CriDaemon) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) for (const [kind, cri] of both) await ask(kind, cri);
}

async function measurePods(): Promise<void> {
  const run = figure("RunPodSandbox", "ms", "<= 0.8x");
  const start = figure("CreateContainer and StartContainer", "ms", "<= 1.0x");
  const stop = figure("StopPodSandbox and RemovePodSandbox", "ms", "");
  let round = 0;
  await inTurn(ROUNDS + 1, async (kind, cri) => {
    const config = podConfig(cri.daemon);
    let podSandboxId = "";
    const running = await timed(async () => {
      podSandboxId = (await cri.runtime.runPodSandbox({ config })).podSandboxId;
    });
    const starting = await timed(() => runContainer(cri, podSandboxId, config, script("one", SLEEP)));
    const ending = await timed(async () => {
      await cri.runtime.stopPodSandbox({ podSandboxId });
      await cri.runtime.removePodSandbox({ podSandboxId });
    });
    // The first of each warms up.
    if (round++ < KINDS.length) return;
    run(kind, running);
    start(kind, starting);
    stop(kind, ending);
  });
}

async function podWithContainer(cri: CriDaemon): Promise<void> {
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  await runContainer(cri, podSandboxId, config, script("one", SLEEP));
}

async function measureMany(): Promise<void> {
  const at = figure(`${AT_ONCE} pods of one container at once`, "ms", "<= 0.8x");
  await inTurn(3, async (kind, cri) => {
    at(kind, await timed(() => Promise.all(Array.from({ length: AT_ONCE }, () => podWithContainer(cri)))));
    await removePods(cri.runtime);
  });
}

async function fill(cri: CriDaemon): Promise<void> {
  const config: PodSandboxConfig = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  for (let at = 0; at < CONTAINERS; at++) {
    const request = { podSandboxId, config: script(`c${at}`, SLEEP), sandboxConfig: config };
    await cri.runtime.createContainer(request);
  }
}

async function measureLists(): Promise<void> {
  const target = ">= 3x";
  const calls = {
    ListContainers: (cri: CriDaemon) => cri.runtime.listContainers({}),
    ListPodSandbox: (cri: CriDaemon) => cri.runtime.listPodSandbox({}),
    ListContainerStats: (cri: CriDaemon) => cri.runtime.listContainerStats({}),
  };
  await inTurn(1, (_kind, cri) => fill(cri));
  for (const [name, call] of Object.entries(calls)) {
    const rate = figure(`${name}, ${CONTAINERS} containers`, "calls/s", target);
    await inTurn(ROUNDS, async (kind, cri) => {
      const ms = await timed(async () => {
        for (let at = 0; at < 10; at++) await call(cri);
      });
      rate(kind, 10_000 / ms);
    });
  }
  await inTurn(1, (_kind, cri) => removePods(cri.runtime));
}

/** User and system time since the process began, in milliseconds. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function residentMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

async function measureIdle(): Promise<void> {
  const rss = figure(`RSS with ${PODS} pods`, "MiB", "<= 0.8x");
  const cpu = figure(`CPU of ${IDLE_SECONDS} s idle with ${PODS} pods`, "ms", "<= 1.0x");
  await inTurn(1, async (_kind, cri) => {
    for (let at = 0; at < PODS; at += 10)
      await Promise.all(Array.from({ length: 10 }, () => podWithContainer(cri)));
  });
  await Bun.sleep(10_000);
  const before = new Map([...both].map(([kind, { daemon }]) => [kind, cpuMs(daemon.pid)]));
  await Bun.sleep(IDLE_SECONDS * 1000);
  for (const [kind, { daemon }] of both) {
    rss(kind, residentMib(daemon.pid));
    cpu(kind, cpuMs(daemon.pid) - (before.get(kind) ?? 0));
  }
}

function print(): void {
  for (const { name, unit, target, samples } of figures) {
    const [theirs = Number.NaN, ours = Number.NaN] = KINDS.map((kind) => median(samples.get(kind) ?? []));
    const ratio = `${(ours / theirs).toFixed(2)}x`;
    process.stdout.write(
      `${name.padEnd(46)} ${unit.padEnd(8)} ours ${ours.toFixed(1).padStart(8)}  containerd ${theirs.toFixed(1).padStart(8)}  ${ratio.padStart(7)}  ${target}\n`,
    );
  }
}

await prepareCri();
using _network = enterHostNetwork();
for (const kind of KINDS) both.set(kind, await startCri(kind));
try {
  await measurePods();
  await measureMany();
  await measureLists();
  await measureIdle();
} finally {
  for (const cri of both.values()) await cri[Symbol.asyncDispose]();
  print();
}
