/**
 * Content: bytes per second of ingest and read, ours and containerd's in turn, by containerd's own client (`ctr` 2.1).
 * `bun bench/content.ts [MiB]`; `BUNKERD_BIN` names another executable.
 */
import { randomFillSync } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { containerdProgram, type Daemon, startDaemon, WITHOUT_COLLECTION } from "../test/support/daemons.ts";
import { start } from "../test/support/processes.ts";
import { median } from "./measurements.ts";

const ROUNDS = 5;
const sizeMib = Number(process.argv[2] ?? 256);

interface Rates {
  readonly ingest: number[];
  readonly read: number[];
}

/** Runs ctr with a file as its input and nothing as its output; answers MiB/s. */
async function rateOf(daemon: Daemon, args: readonly string[], input?: string): Promise<number> {
  const program = await containerdProgram("2.1", "ctr");
  const startedAt = performance.now();
  const child = start([program, "--address", daemon.socket, "content", ...args], {
    stdin: input === undefined ? "ignore" : Bun.file(input),
    stdout: Bun.file("/dev/null"),
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) throw new Error(`ctr content ${args.join(" ")} failed on ${daemon.kind}`);
  return sizeMib / ((performance.now() - startedAt) / 1000);
}

async function main(): Promise<void> {
  const daemons = {
    ours: await startDaemon("bunkerd", { config: WITHOUT_COLLECTION }),
    containerd: await startDaemon("containerd-2.1", { config: WITHOUT_COLLECTION }),
  };
  const rates: Record<keyof typeof daemons, Rates> = {
    ours: { ingest: [], read: [] },
    containerd: { ingest: [], read: [] },
  };
  const bytes = Buffer.alloc(sizeMib << 20);
  const file = join(daemons.ours.folder, "input");
  for (let round = 0; round <= ROUNDS; round++) {
    randomFillSync(bytes);
    writeFileSync(file, bytes);
    const digest = `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
    for (const side of ["ours", "containerd"] as const) {
      const ingest = await rateOf(daemons[side], ["ingest", `ref${round}`], file);
      const read = await rateOf(daemons[side], ["get", digest]);
      // The first round warms up.
      if (round === 0) continue;
      rates[side].ingest.push(ingest);
      rates[side].read.push(read);
      await rateOf(daemons[side], ["rm", digest]);
    }
  }
  for (const what of ["ingest", "read"] as const) {
    const [ours, theirs] = [median(rates.ours[what]), median(rates.containerd[what])];
    const line = `${what}: ours ${ours.toFixed(0)} MiB/s, containerd ${theirs.toFixed(0)} MiB/s, ${(ours / theirs).toFixed(2)}x`;
    process.stdout.write(`${line} (target >= 1.5x)\n`);
  }
  rmSync(file);
  for (const daemon of Object.values(daemons)) await daemon.stop();
}

await main();
