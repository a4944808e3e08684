/**
 * Containers beside containerd 2.1 in one run, by its own client: `ctr run --rm` of busybox's `true` one after another and ten at once, and
 * the daemon's memory after many. Real shim and runc, as root; part of `make bench`, or alone by `bun bench/run-containers.ts`.
 * `ROUNDS=1` and `CONTAINERS=200` make it short.
 */
import { ctr } from "../test/support/commands.ts";
import { endNamespaces, newNamespace } from "../test/support/containers.ts";
import { importImage } from "../test/support/cri.ts";
import { type Daemon, startDaemon } from "../test/support/daemons.ts";
import { type Figure, figure, printFigures, progress, SIDES, type Side, sidesOf } from "./figures.ts";
import { memoryOf, SETTLE_MS } from "./measurements.ts";

const IMAGE = "docker.io/library/box:1";
/** The targets' number of runs. */
const RUNS = 20;
const AT_ONCE = 10;
const FEW = 100;
const MANY = Number(process.env["CONTAINERS"] ?? 1000);

interface Runner {
  readonly daemon: Daemon;
  /** Runs a container to its end and removes it. @throws with what ctr says */
  run(): Promise<void>;
}

async function startRunner(side: Side): Promise<Runner> {
  const daemon = await startDaemon(side === "ours" ? "bunkerd" : "containerd-2.1");
  const namespace = newNamespace();
  await importImage(daemon, IMAGE, { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] }, [], namespace);
  let sequence = 0;
  return {
    daemon,
    async run() {
      const id = `run-${++sequence}`;
      const args = ["-n", namespace, "run", "--rm", IMAGE, id, "/bin/busybox", "true"];
      const { code, stderr } = await ctr("2.1", daemon, ...args);
      if (code !== 0) throw new Error(`${daemon.kind}: ctr run ${id}: ${stderr}`);
    },
  };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

async function measureRuns(both: Readonly<Record<Side, Runner>>, rounds: number): Promise<void> {
  progress("containers by ctr");
  const one = figure("ctr run --rm of true", "ms", { atMost: 1 });
  const many = figure(`ctr run --rm of true, ${AT_ONCE} at once`, "ms", { atMost: 0.9 });
  for (let run = -1; run < RUNS; run++) {
    for (const [side] of sidesOf(run)) {
      const ms = await timed(() => both[side].run());
      if (run >= 0) one.samples[side].push(ms);
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const [side] of sidesOf(round)) {
      const all = () => Promise.all(Array.from({ length: AT_ONCE }, () => both[side].run()));
      many.samples[side].push(await timed(all));
    }
  }
}

/** Memory of daemons that have run nothing before. */
async function measureMemory(both: Readonly<Record<Side, Runner>>): Promise<void> {
  progress(`memory after ${MANY} containers`);
  const few = figure(`RSS after ${FEW} containers`, "MiB", { atMost: 0.9 });
  const many = figure(`RSS after ${MANY} containers`, "MiB", undefined);
  const growth: Record<Side, number> = { ours: 0, containerd: 0 };
  let done = 0;
  const runUntil = async (count: number, figureOf: Figure): Promise<void> => {
    for (; done < count; done += AT_ONCE) {
      for (const [side] of SIDES) await Promise.all(Array.from({ length: AT_ONCE }, () => both[side].run()));
    }
    await Bun.sleep(SETTLE_MS);
    for (const [side] of SIDES) figureOf.samples[side].push(memoryOf(both[side].daemon).rss);
  };
  await runUntil(FEW, few);
  await runUntil(MANY, many);
  for (const [side] of SIDES)
    growth[side] = (many.samples[side][0] ?? Number.NaN) / (few.samples[side][0] ?? Number.NaN);
  // A target of ours alone: beside it stands what the target allows.
  const grown = figure(`RSS after ${MANY} beside that after ${FEW}, beside 1`, "x", { atMost: 1.1 });
  grown.samples.ours.push(growth.ours);
  grown.samples.containerd.push(1);
  progress(`containerd's own growth: ${growth.containerd.toFixed(2)}x`);
}

async function withBoth(work: (both: Readonly<Record<Side, Runner>>) => Promise<void>): Promise<void> {
  const both = { ours: await startRunner("ours"), containerd: await startRunner("containerd") };
  try {
    await work(both);
  } finally {
    for (const [side] of SIDES) await both[side].daemon.stop();
    endNamespaces();
  }
}

/** Adds the figures. */
export async function measureContainers(rounds: number): Promise<void> {
  await withBoth((both) => measureRuns(both, rounds));
  await withBoth(measureMemory);
}

if (import.meta.main) {
  const rounds = Number(process.env["ROUNDS"] ?? 5);
  await measureContainers(rounds);
  printFigures(rounds);
}
