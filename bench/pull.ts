/**
 * An image of 8 layers, pulled from a registry on this machine and imported from an archive, unpacked either way by the daemon's Transfer service: bunkerd beside
 * containerd 2.1. `bun bench/pull.ts` prints medians and ratios; `bench/run.ts` takes the samples.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ctr } from "../test/support/commands.ts";
import { type Daemon, type DaemonKind, startDaemon } from "../test/support/daemons.ts";
import { freePort } from "../test/support/ports.ts";
import { removeFolder, temporaryFolder } from "../test/support/processes.ts";
import { pushImage, startRegistry } from "../test/support/registry.ts";
import { buildImage, type TarEntry, tar } from "../test/support/tar.ts";

const LAYERS = 8;
const FILES = 1000;

/** Half of each file does not compress: 20 kB that become some 10 kB. */
function layerOf(number: number): Buffer {
  const entries: TarEntry[] = [{ name: `l${number}/`, type: "5", mode: 0o755 }];
  for (let n = 0; n < FILES; n++) {
    const data = Buffer.alloc(20_000, `file ${n} `);
    randomBytes(10_000).copy(data);
    entries.push({ name: `l${number}/f${n}`, data, mode: 0o644 });
  }
  return tar(entries);
}

export type Sample = "pull" | "import";

/** Seconds that `ctr` takes on a fresh daemon of each kind, in turn; those of the first round are not told. */
export async function measureImages(
  rounds: number,
  take: (sample: Sample, kind: DaemonKind, seconds: number, cpuSeconds: number) => void,
): Promise<void> {
  const folder = temporaryFolder();
  // Their files go in the end: ext4 looks for half a minute through what was just removed whenever a file is made.
  const ended: Daemon[] = [];
  const registry = await startRegistry(join(folder, "registry"), await freePort());
  try {
    const layers = Array.from({ length: LAYERS }, (_, at) => layerOf(at));
    const image = buildImage("docker.io/library/bench:1", layers, (layer) => ({
      blob: gzipSync(layer),
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    }));
    const archive = join(folder, "image.tar");
    writeFileSync(archive, image.archive);
    await pushImage(registry, "library/bench", "1", image);
    const commands: Readonly<Record<Sample, readonly string[]>> = {
      pull: ["images", "pull", "--plain-http", `${registry.host}/library/bench:1`],
      import: ["images", "import", archive],
    };
    for (let round = 0; round <= rounds; round++) {
      for (const sample of ["pull", "import"] as const) {
        for (const kind of ["containerd-2.1", "bunkerd"] as const) {
          Bun.spawnSync(["sync"]);
          const daemon = await startDaemon(kind, { config: process.env["BENCH_CONFIG"] ?? "" });
          ended.push(daemon);
          const seconds = await secondsOf(daemon, commands[sample]);
          if (round > 0) take(sample, kind, seconds, cpuSeconds(daemon.pid));
          await daemon.halt();
        }
      }
    }
  } finally {
    await registry.stop();
    for (const daemon of ended) await daemon.stop();
    removeFolder(folder);
  }
}

async function secondsOf(daemon: Daemon, command: readonly string[]): Promise<number> {
  const startedAt = performance.now();
  const { code, stderr } = await ctr("2.1", daemon, ...command);
  if (code !== 0) throw new Error(`${daemon.kind}: ctr ${command.join(" ")}: ${stderr}`);
  return (performance.now() - startedAt) / 1000;
}

/** User and system time since the process began. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

if (import.meta.main) {
  const taken = new Map<string, { seconds: number[]; cpu: number[] }>();
  await measureImages(Number(process.env["RUNS"] ?? 5), (sample, kind, seconds, cpu) => {
    const key = `${sample} ${kind}`;
    const samples = taken.get(key) ?? { seconds: [], cpu: [] };
    samples.seconds.push(seconds);
    samples.cpu.push(cpu);
    taken.set(key, samples);
  });
  const median = (values: readonly number[]): number =>
    values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
  for (const sample of ["pull", "import"]) {
    const of = (kind: DaemonKind) => taken.get(`${sample} ${kind}`) ?? { seconds: [], cpu: [] };
    const [theirs, ours] = [of("containerd-2.1"), of("bunkerd")];
    const ratio = median(ours.seconds) / median(theirs.seconds);
    const line = (side: { seconds: number[]; cpu: number[] }): string =>
      `${median(side.seconds).toFixed(2)} s (${side.seconds.map((time) => time.toFixed(2)).join(" ")}; ${median(side.cpu).toFixed(2)} s of CPU)`;
    process.stdout.write(
      `${sample}: bunkerd ${line(ours)}, containerd ${line(theirs)}: ${ratio.toFixed(2)}x\n`,
    );
  }
}
