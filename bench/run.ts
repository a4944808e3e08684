/**
 * `make bench`: every figure of the speed targets, ours and containerd's measured in turn in one run, on one filesystem,
 * by one client, after a warm-up of both. containerd is Debian's (sid's 2.1) with a root of its own, without CRI but where CRI is measured. Prints a table, writes
 * `dist/bench.json`, exits 1 if a target is missed. `ROUNDS=1 make bench` is a quick look, `ONLY=writes,cri make bench` measures these
 * parts.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Daemon, startDaemon } from "../test/support/daemons.ts";
import { measureBulk } from "./bulk.ts";
import { measureCri } from "./cri.ts";
import { type Figure, figure, printFigures, progress, SIDES, type Side } from "./figures.ts";
import type { Rate } from "./h2load.ts";
import { measureLayer } from "./layers.ts";
import * as measure from "./measurements.ts";
import { measurePods } from "./pods.ts";
import { measureImages } from "./pull.ts";
import { measureContainers } from "./run-containers.ts";

const ROUNDS = Number(process.env["ROUNDS"] ?? 5);
/** A daemon runs for months: what its first thousand calls cost is told by the start, not by the rates. */
const WARMUP_ROUNDS = 3;
const FILTER = ["labels.app==sought"];

/** How Get is asked. */
const CALLS_AT_ONCE = [
  { connections: 1, streams: 32 },
  { connections: 4, streams: 8 },
  { connections: 32, streams: 4 },
];
const ONE_AFTER_ANOTHER = [1, 4, 32].map((connections) => ({ connections, streams: 1 }));

/** Each round asks both daemons, so that what else the machine does meets both. */
async function inTurn(
  daemons: Readonly<Record<Side, Daemon>>,
  ask: (daemon: Daemon, round: number, side: Side) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    for (const [side] of SIDES) await ask(daemons[side], round, side);
  }
}

async function startBoth(): Promise<Record<Side, Daemon>> {
  return { ours: await startDaemon("bunkerd"), containerd: await startDaemon("containerd-2.1") };
}

async function stopBoth(daemons: Record<Side, Daemon>): Promise<void> {
  for (const [side] of SIDES) await daemons[side].stop();
}

async function measureIdle(): Promise<void> {
  progress("idle memory");
  const [rss, pss, anonymous] = [
    figure("idle RSS", "MiB", { atMost: 0.9 }),
    figure("idle PSS", "MiB", undefined),
    figure("idle anonymous memory", "MiB", undefined),
  ];
  for (let round = 0; round < ROUNDS; round++) {
    const daemons = await startBoth();
    await Bun.sleep(measure.SETTLE_MS);
    for (const [side] of SIDES) {
      const memory = measure.memoryOf(daemons[side]);
      rss?.samples[side].push(memory.rss);
      pss?.samples[side].push(memory.pss);
      anonymous?.samples[side].push(memory.anonymous);
    }
    await stopBoth(daemons);
  }
}

async function measureWrites(): Promise<void> {
  progress("writes");
  const latency = figure("sequential create latency", "ms", { atMost: 1 });
  const rates = [1, measure.WORKERS].map((connections) => {
    const name = (call: string): string =>
      `${call}, ${measure.WORKERS} workers on ${connections} connection${connections > 1 ? "s" : ""}`;
    const of = (call: string): Figure => figure(name(call), "calls/s", { atLeast: 4 });
    return { connections, create: of("create"), update: of("update"), delete: of("delete") };
  });
  const daemons = await startBoth();
  for (const [side] of SIDES) {
    for (let round = 0; round < WARMUP_ROUNDS; round++)
      await measure.writeRates(daemons[side], -1 - round, 2000, 8);
  }
  await inTurn(daemons, async (daemon, round, side) => {
    latency.samples[side].push(await measure.createLatency(daemon, round, 300));
    for (const each of rates) {
      const sample = await measure.writeRates(daemon, round, 2000, each.connections);
      for (const name of ["create", "update", "delete"] as const) each[name].samples[side].push(sample[name]);
    }
  });
  await stopBoth(daemons);
}

/** Reads of a store of `count` containers, and what the daemon holds in memory after them. */
async function measureReads(count: number, sizeBytes: number, requests: number): Promise<void> {
  progress(`reads of ${count} containers`);
  const of = `${count} x ${sizeBytes / 1024} KiB`;
  // One after another, the client and the waking of processors are most of a call: that has no target.
  const gets = [...CALLS_AT_ONCE, ...ONE_AFTER_ANOTHER].map((at) => {
    const { connections, streams } = at;
    const how = streams > 1 ? `${streams} calls at once on each of` : "one after another on";
    const name = `Get, ${how} ${connections} connection${connections > 1 ? "s" : ""}, of ${of}`;
    return { at, rate: figure(name, "calls/s", streams > 1 ? { atLeast: 4 } : undefined) };
  });
  const list = figure(`List of ${of}`, "calls/s", { atLeast: 4 });
  const stream = figure(`ListStream of ${of}`, "calls/s", { atLeast: 4 });
  const filtered = figure(`filtered List of ${of}`, "calls/s", { atLeast: 5 });
  const rss = figure(`RSS after these, ${of}`, "MiB", undefined);
  const daemons = await startBoth();
  for (const [side] of SIDES) {
    await measure.fill(daemons[side], "reads", count, sizeBytes);
    await measure.getRate(daemons[side], "reads", 5000);
    await measure.listRate(daemons[side], "List", "reads", 3);
  }
  const answers = new Map<Figure, Record<Side, number>>();
  await inTurn(daemons, async (daemon, _round, side) => {
    const note = async (of: Figure, measured: Promise<Rate>): Promise<void> => {
      const { perSecond, answerBytes } = await measured;
      of.samples[side].push(perSecond);
      answers.set(of, { ours: 0, containerd: 0, ...answers.get(of), [side]: answerBytes });
    };
    for (const { at, rate } of gets)
      await note(rate, measure.getRate(daemon, "reads", at.streams > 1 ? 30_000 : 10_000, at));
    await note(list, measure.listRate(daemon, "List", "reads", requests));
    await note(stream, measure.listRate(daemon, "ListStream", "reads", requests));
    await note(filtered, measure.listRate(daemon, "List", "reads", requests, FILTER));
    rss.samples[side].push(measure.memoryOf(daemon).rss);
  });
  await stopBoth(daemons);
  for (const [{ name }, bytes] of answers) expectAlike(name, bytes);
}

/** A daemon that answers less is not faster. Times take a byte more or less each. */
function expectAlike(name: string, { ours, containerd }: Record<Side, number>): void {
  if (Math.abs(ours / containerd - 1) < 0.02) return;
  throw new Error(`${name}: ours answers ${ours} bytes, containerd ${containerd}`);
}

async function measureStart(count: number): Promise<void> {
  progress("start");
  const start = figure(`start to first answer, ${count} containers`, "ms", { atMost: 1 });
  const list = figure(`first List of ${count}`, "ms", undefined);
  const daemons = await startBoth();
  for (const [side] of SIDES) {
    await measure.fill(daemons[side], "reads", count, 1024);
    await daemons[side].halt();
  }
  for (const [side, kind] of SIDES) await measure.startTime(kind, "reads", { folder: daemons[side].folder });
  for (let round = 0; round < ROUNDS; round++) {
    for (const [side, kind] of SIDES) {
      const sample = await measure.startTime(kind, "reads", { folder: daemons[side].folder });
      start.samples[side].push(sample.firstAnswer);
      list.samples[side].push(sample.firstList);
    }
  }
  await stopBoth(daemons);
}

/** What the HTTP/2 engine is for, beside rates. */
async function measureConnections(): Promise<void> {
  progress("latency and connections");
  const tail = figure("99th percentile of Get at 5000 a second", "ms", { atMost: 0.7 });
  const memory = figure("RSS with 1000 idle connections", "MiB", { atMost: 1 });
  const daemons = await startBoth();
  for (const [side] of SIDES) {
    await measure.fill(daemons[side], "reads", 100, 4096);
    await measure.getRate(daemons[side], "reads", 5000);
  }
  await inTurn(daemons, async (daemon, _round, side) => {
    tail.samples[side].push(await measure.getTail(daemon, "reads", 5000, 3));
  });
  await stopBoth(daemons);
  const fresh = await startBoth();
  for (const [side] of SIDES) await measure.fill(fresh[side], "reads", 10, 4096);
  await inTurn(fresh, async (daemon, _round, side) => {
    memory.samples[side].push(await measure.idleConnectionsMemory(daemon, "reads", 1000));
  });
  await stopBoth(fresh);
}

async function measureTransfers(): Promise<void> {
  progress("pull and import");
  const times = {
    pull: figure("pull and unpack of 8 layers, 160 MB", "s", { atMost: 0.8 }),
    import: figure("import and unpack of the same", "s", { atMost: 0.8 }),
  };
  await measureImages(ROUNDS, (sample, kind, seconds) => {
    times[sample].samples[kind === "bunkerd" ? "ours" : "containerd"].push(seconds);
  });
  progress("import of one large layer");
  const large = figure("import and unpack of 200 MB, 10,000 files", "s", { atMost: 0.8 });
  await measureLayer(ROUNDS, ["service"], (_road, kind, { seconds }) => {
    large.samples[kind === "bunkerd" ? "ours" : "containerd"].push(seconds);
  });
}

const PARTS: Readonly<Record<string, () => Promise<void>>> = {
  idle: measureIdle,
  writes: measureWrites,
  reads: async () => {
    await measureReads(1000, 4096, 40);
    await measureReads(10_000, 1024, 10);
  },
  start: () => measureStart(10_000),
  connections: measureConnections,
  bulk: () => measureBulk(ROUNDS),
  transfers: measureTransfers,
  containers: () => measureContainers(ROUNDS),
  cri: () => measureCri(ROUNDS),
  pods: () => measurePods(ROUNDS),
};
const wanted = process.env["ONLY"]?.split(",") ?? Object.keys(PARTS);
for (const name of wanted) {
  const measurePart = PARTS[name];
  if (measurePart === undefined) throw new Error(`ONLY=${name}: parts are ${Object.keys(PARTS).join(", ")}`);
  await measurePart();
}

const { machine, rows } = printFigures(ROUNDS);
mkdirSync(join(import.meta.dir, "../dist"), { recursive: true });
writeFileSync(
  join(import.meta.dir, "../dist/bench.json"),
  `${JSON.stringify({ machine, rounds: ROUNDS, rows }, null, 2)}\n`,
);
process.exit(rows.some(({ met }) => met === false) ? 1 : 0);
