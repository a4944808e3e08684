/** Import and unpack of an image of 200 MB (gzip) with 10,000 files: bunkerd beside containerd 2.1, medians and their ratio. */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ctr } from "../test/support/commands.ts";
import { type Daemon, type DaemonKind, startDaemon } from "../test/support/daemons.ts";
import { removeFolder, temporaryFolder } from "../test/support/processes.ts";
import { buildImage, type TarEntry, tar } from "../test/support/tar.ts";

const FILES = 10_000;
const RUNS = Number(process.env["RUNS"] ?? 5);
/** More flags of `ctr images import`, such as `--no-unpack`. */
const FLAGS = process.env["IMPORT_FLAGS"]?.split(" ") ?? [];
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

function residentPeakKb(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** User and system time since the process began, in seconds. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const folder = temporaryFolder();
/** Their files go in the end: ext4 looks for half a minute through what was just removed whenever a file is made. */
const ended: Daemon[] = [];
try {
  const archive = join(folder, "image.tar");
  const pack = (layer: Buffer) => ({
    blob: gzipSync(layer),
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  });
  const image = buildImage(REFERENCE, [tar(files(FILES))], pack);
  writeFileSync(archive, image.archive);
  process.stdout.write(`image of ${(image.archive.length / 1e6).toFixed(0)} MB, ${FILES} files\n`);
  const samples = new Map(KINDS.map((kind) => [kind, { seconds: [] as number[], peakKb: 0, cpu: 0 }]));
  // In turn, the first of each to warm up, so that a busy disk is everybody's.
  for (let run = 0; run <= RUNS; run++) {
    for (const [kind, sample] of samples) {
      Bun.spawnSync(["sync"]);
      const daemon = await startDaemon(kind, { config: process.env["BENCH_CONFIG"] ?? "" });
      ended.push(daemon);
      const startedAt = performance.now();
      const { code, stderr } = await ctr("2.1", daemon, "images", "import", "--local", ...FLAGS, archive);
      if (code !== 0) throw new Error(stderr);
      if (run > 0) sample.seconds.push((performance.now() - startedAt) / 1000);
      sample.peakKb = residentPeakKb(daemon.pid);
      sample.cpu = cpuSeconds(daemon.pid);
      await daemon.halt();
    }
  }
  const medians = [...samples].map(([kind, { seconds, peakKb, cpu }]) => {
    const times = seconds.map((time) => time.toFixed(2)).join(" ");
    const median = seconds.sort((a, b) => a - b)[RUNS >> 1] ?? Number.NaN;
    const cost = `peak ${(peakKb / 1024).toFixed(0)} MB, ${cpu.toFixed(2)} s of CPU`;
    process.stdout.write(`${kind}: ${median.toFixed(2)} s (${times}), ${cost}\n`);
    return median;
  });
  process.stdout.write(`ours/containerd ${((medians[1] ?? 0) / (medians[0] ?? 0)).toFixed(2)}\n`);
} finally {
  for (const daemon of ended) await daemon.stop();
  removeFolder(folder);
}
