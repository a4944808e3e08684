/**
 * CRI beside containerd 2.1 in one run: pods of busybox on a CNI bridge in a network namespace of the bench's own, real shim and runc. As root; part of
 * `make bench`, or alone by `bun bench/cri.ts`. `ROUNDS=3` and `CONTAINERS=100` make it short.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CriDaemon,
  podConfig,
  prepareCri,
  removePods,
  runContainer,
  script,
  startCri,
} from "../test/support/cri.ts";
import { enterHostNetwork } from "../test/support/netns.ts";
import { type Figure, figure, printFigures, progress, SIDES, type Side, sidesOf } from "./figures.ts";
import { h2load } from "./h2load.ts";

const CONTAINERS = Number(process.env["CONTAINERS"] ?? 500);
/** For the lists the containers are spread over so many pods, and so many of them run: what does not run a list shows all the same. */
const LISTED_PODS = 20;
const RUNNING = CONTAINERS / 5;
/** How often each is asked in a round: a quarter of a second's worth at least. */
const LISTS = [
  ["ListContainers", 4000],
  ["ListPodSandbox", 30_000],
  ["ListContainerStats", 40],
] as const;
/** Calls under way at once on the connection. One after another, waking up is most of a call: that has no target. */
const LISTS_AT_ONCE = 32;
const AT_ONCE = 20;
const PODS = 50;
const IDLE_SECONDS = 60;
/** How long the kernel is given to take away what pods leave to it. */
const ENDS_MS = 500;
const SLEEP = "while true; do sleep 1000; done";

async function timed(run: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await run();
  return performance.now() - startedAt;
}

type Both = Readonly<Record<Side, CriDaemon>>;

async function inTurn(
  both: Both,
  rounds: number,
  ask: (cri: CriDaemon, side: Side) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const [side] of sidesOf(round)) await ask(both[side], side);
  }
}

async function measurePods(both: Both, rounds: number): Promise<void> {
  progress("pods one after another");
  const run = figure("RunPodSandbox", "ms", { atMost: 0.8 });
  const start = figure("CreateContainer and StartContainer", "ms", { atMost: 1 });
  const stop = figure("StopPodSandbox and RemovePodSandbox", "ms", undefined);
  let asked = 0;
  await inTurn(both, rounds + 1, async (cri, side) => {
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
    if (asked++ < SIDES.length) return;
    run.samples[side].push(running);
    start.samples[side].push(starting);
    stop.samples[side].push(ending);
  });
}

async function podWithContainer(cri: CriDaemon): Promise<void> {
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  await runContainer(cri, podSandboxId, config, script("one", SLEEP));
}

async function measureMany(both: Both, rounds: number): Promise<void> {
  progress(`${AT_ONCE} pods at once`);
  const at = figure(`${AT_ONCE} pods of one container at once`, "ms", { atMost: 0.8 });
  let asked = 0;
  await inTurn(both, rounds + 1, async (cri, side) => {
    const pods = () => Promise.all(Array.from({ length: AT_ONCE }, () => podWithContainer(cri)));
    const ms = await timed(pods);
    await removePods(cri.runtime);
    await Bun.sleep(ENDS_MS);
    // The first of each warms up.
    if (asked++ >= SIDES.length) at.samples[side].push(ms);
  });
}

async function fill(cri: CriDaemon): Promise<void> {
  const pods = await Promise.all(
    Array.from({ length: LISTED_PODS }, async () => {
      const sandboxConfig = podConfig(cri.daemon);
      const { podSandboxId } = await cri.runtime.runPodSandbox({ config: sandboxConfig });
      return { podSandboxId, sandboxConfig };
    }),
  );
  const worker = async ({ podSandboxId, sandboxConfig }: (typeof pods)[number], first: number) => {
    for (let at = first; at < CONTAINERS; at += LISTED_PODS) {
      const config = script(`c${at}`, SLEEP);
      const { containerId } = await cri.runtime.createContainer({ podSandboxId, config, sandboxConfig });
      if (at < RUNNING) await cri.runtime.startContainer({ containerId });
    }
  };
  await Promise.all(pods.map(worker));
}

/** By h2load: a client that decodes what it gets would be most of what is measured. */
async function measureLists(both: Both, rounds: number): Promise<void> {
  progress(`lists of ${CONTAINERS} containers`);
  await inTurn(both, 1, fill);
  for (const [name, requests] of LISTS) {
    const what = `${CONTAINERS} containers, ${RUNNING} run, ${LISTED_PODS} pods`;
    const ways = [
      {
        streams: LISTS_AT_ONCE,
        rate: figure(`${name}, ${LISTS_AT_ONCE} at once, ${what}`, "calls/s", { atLeast: 3 }),
      },
      { streams: 1, rate: figure(`${name}, one after another, ${what}`, "calls/s", undefined) },
    ];
    const ask = async ({ daemon }: CriDaemon, streams: number) => {
      const path = `/runtime.v1.RuntimeService/${name}`;
      const call = { socket: daemon.socket, path, namespace: "k8s.io", message: new Uint8Array(0) };
      return (await h2load(daemon.folder, { ...call, requests, connections: 1, streams })).perSecond;
    };
    for (const { streams, rate } of ways) {
      await inTurn(both, 1, async (cri) => void (await ask(cri, streams)));
      await inTurn(both, rounds, async (cri, side) => void rate.samples[side].push(await ask(cri, streams)));
    }
  }
  await inTurn(both, 1, (cri) => removePods(cri.runtime));
}

/** How long each thread has run, in nanoseconds: `schedstat`, where `stat` counts ticks of 10 ms. */
function threadTimes(pid: number): Map<string, number> {
  const folder = `/proc/${pid}/task`;
  const time = (thread: string) =>
    Number(readFileSync(join(folder, thread, "schedstat"), "utf8").split(" ")[0]);
  return new Map(readdirSync(folder).map((thread) => [thread, time(thread)]));
}

/** Between two looks at its threads, in milliseconds; one that has ended meanwhile is left out. */
function cpuMs(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number {
  let nanoseconds = 0;
  for (const [thread, time] of after) nanoseconds += time - (before.get(thread) ?? 0);
  return nanoseconds / 1e6;
}

function residentMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

/** Each of many pods at rest, what its daemon holds and does. */
async function measureIdle(both: Both): Promise<void> {
  progress(`${PODS} pods at rest`);
  const rss = figure(`RSS with ${PODS} pods`, "MiB", { atMost: 0.8 });
  const cpu = figure(`CPU of ${IDLE_SECONDS} s idle with ${PODS} pods`, "ms", { atMost: 1 });
  await inTurn(both, 1, async (cri) => {
    for (let at = 0; at < PODS; at += 10)
      await Promise.all(Array.from({ length: 10 }, () => podWithContainer(cri)));
  });
  // What a collector gives back, it gives back within seconds.
  await Bun.sleep(25_000);
  const note = (of: Figure, measured: (pid: number) => number): void => {
    for (const [side] of SIDES) of.samples[side].push(measured(both[side].daemon.pid));
  };
  const before = new Map(SIDES.map(([side]) => [both[side].daemon.pid, threadTimes(both[side].daemon.pid)]));
  await Bun.sleep(IDLE_SECONDS * 1000);
  note(rss, residentMib);
  note(cpu, (pid) => cpuMs(before.get(pid) ?? new Map(), threadTimes(pid)));
}

export async function measureCri(rounds: number): Promise<void> {
  await prepareCri();
  using _network = enterHostNetwork();
  await using ours = await startCri("bunkerd");
  await using containerd = await startCri("containerd-2.1");
  const both = { ours, containerd };
  // One pod, and twenty at once, differ by a fifth from one time to the next.
  await measurePods(both, 5 * rounds);
  await measureMany(both, 2 * rounds);
  await measureLists(both, rounds);
  await measureIdle(both);
}

if (import.meta.main) {
  const rounds = Number(process.env["ROUNDS"] ?? 5);
  try {
    await measureCri(rounds);
  } finally {
    printFigures(rounds);
  }
}
