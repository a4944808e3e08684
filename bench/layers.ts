/**
 * Import and unpack of an image of 200 MB (gzip) with 10,000 files in one layer, by the daemon's Transfer service (as ctr 2.1 does by itself) and by ctr's
 * own client (`--local`): bunkerd beside containerd 2.1. `bun bench/layers.ts` prints medians and ratios; `bench/run.ts` takes the samples.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ctr } from "../test/support/commands.ts";
import { type Daemon, type DaemonKind, startDaemon } from "../test/support/daemons.ts";
import { removeFolder, temporaryFolder } from "../test/support/processes.ts";
import { buildImage, type TarEntry, tar } from "../test/support/tar.ts";

const FILES = 10_000;
const REFERENCE = "docker.io/library/bench:1";
const KINDS: readonly DaemonKind[] = ["containerd-2.1", "bunkerd"];

/** Half of each file does not compress: 40 kB that become some 20 kB. */
function files(count: number): TarEntry[] {
  const entries: TarEntry[] = [];
  for (let n = 0; n < count; n++) {
    if (n % 100 === 0) entries.push({ name: `d${n / 100}/`, type: "5", mode: 0o755 });
    const data = Buffer.alloc(40_000, `file ${n} `);
    randomBytes(20_000).copy(data);
    entries.push({ name: `d${Math.floor(n / 100)}/f${n}`, data, mode: 0o644 });
  }
  return entries;
}

/** Flags of `ctr images import`. */
const ROADS = { service: [], client: ["--local"] } as const;
export type Road = keyof typeof ROADS;

export interface Sample {
  readonly seconds: number;
  /** Of the daemon, from its start to the import's end. */
  readonly cpuSeconds: number;
  readonly peakMb: number;
}

/** What each road costs a fresh daemon of each kind, in turn, so that a busy disk is everybody's; the first round is not told. */
export async function measureLayer(
  rounds: number,
  roads: readonly Road[],
  take: (road: Road, kind: DaemonKind, sample: Sample) => void,
): Promise<void> {
  const folder = temporaryFolder();
  // Their files go in the end: ext4 looks for half a minute through what was just removed whenever a file is made.
  const ended: Daemon[] = [];
  try {
    const archive = join(folder, "image.tar");
    const pack = (layer: Buffer) => ({
      blob: gzipSync(layer),
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    });
    writeFileSync(archive, buildImage(REFERENCE, [tar(files(FILES))], pack).archive);
    for (let round = 0; round <= rounds; round++) {
      for (const road of roads) {
        for (const kind of KINDS) {
          Bun.spawnSync(["sync"]);
          const daemon = await startDaemon(kind, { config: process.env["BENCH_CONFIG"] ?? "" });
          ended.push(daemon);
          const sample = await sampleOf(daemon, ["images", "import", ...ROADS[road], archive]);
          if (round > 0) take(road, kind, sample);
          await daemon.halt();
        }
      }
    }
  } finally {
    for (const daemon of ended) await daemon.stop();
    removeFolder(folder);
  }
}

async function sampleOf(daemon: Daemon, command: readonly string[]): Promise<Sample> {
  const startedAt = performance.now();
  const { code, stderr } = await ctr("2.1", daemon, ...command);
  if (code !== 0) throw new Error(`${daemon.kind}: ctr ${command.join(" ")}: ${stderr}`);
  const seconds = (performance.now() - startedAt) / 1000;
  return { seconds, cpuSeconds: cpuSeconds(daemon.pid), peakMb: residentPeakMb(daemon.pid) };
}

function residentPeakMb(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

/** User and system time since the process began. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

if (import.meta.main) {
  const roads: readonly Road[] = ["service", "client"];
  const taken = new Map<string, Sample[]>();
  await measureLayer(Number(process.env["RUNS"] ?? 5), roads, (road, kind, sample) => {
    taken.set(`${road} ${kind}`, [...(taken.get(`${road} ${kind}`) ?? []), sample]);
  });
  const median = (values: readonly number[]): number =>
    values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  for (const road of roads) {
    const medians = KINDS.map((kind) => {
      const samples = taken.get(`${road} ${kind}`) ?? [];
      const [time, cpu, peak] = [
        median(samples.map(({ seconds }) => seconds)),
        median(samples.map(({ cpuSeconds: seconds }) => seconds)),
        median(samples.map(({ peakMb }) => peakMb)),
      ];
      const times = samples.map(({ seconds }) => seconds.toFixed(2)).join(" ");
      process.stdout.write(
        `${road} ${kind}: ${time.toFixed(2)} s (${times}), ${cpu.toFixed(2)} s of CPU, peak ${peak.toFixed(0)} MB\n`,
      );
      return time;
    });
    process.stdout.write(`${road}: ours/containerd ${((medians[1] ?? 0) / (medians[0] ?? 0)).toFixed(2)}\n`);
  }
}
