/**
 * Random connections through the engine and through nghttp2, which is what Node speaks HTTP/2 by: both refuse, or both answer the same
 * streams. Where they do not, `EXPLAINED` says why, with the section of the RFC and an example of it in `corpus/nghttp2`.
 */
import { afterAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type ExchangeOptions, exchange, framesOf } from "../support/engine-wire.ts";
import { fuzzInputs, MemoryWatch } from "../support/fuzz.ts";
import {
  agree,
  type Difference,
  EXPLANATIONS,
  explanationOf,
  meaningful,
  type Outcome,
  outcomeOf,
} from "../support/nghttp2-differences.ts";
import { removeFolder, start, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { randomConnection } from "../support/random-http2.ts";

const INPUTS = fuzzInputs(5_000);
/** Starting Node costs as much as a few hundred connections. */
const BATCH = 5_000;
const REFERENCE = join(import.meta.dir, "..", "support", "nghttp2-reference.mjs");
const CORPUS = join(import.meta.dir, "corpus", "nghttp2");
/** Where limits are each server's to choose, those of nghttp2. */
const OPTIONS: ExchangeOptions = {
  late: true,
  limits: { maxConcurrentStreams: 100, minPingIntervalMs: 0, minIdlePingIntervalMs: 0 },
};

const folder = temporaryFolder();
afterAll(() => removeFolder(folder));

/** One opinion a connection; undefined for one that Node did not survive, which Node 20 does once in some 100,000. */
async function theirOutcomes(batch: readonly Buffer[]): Promise<(Outcome | undefined)[]> {
  const outcomes: (Outcome | undefined)[] = [];
  const [input, output] = [join(folder, "input"), join(folder, "output")];
  while (outcomes.length < batch.length) {
    const left = batch.slice(outcomes.length);
    await Bun.write(input, left.map((bytes) => `${bytes.toString("hex")}\n`).join(""));
    await Bun.write(output, "");
    // Files, so that neither waits for the other to read or write.
    const child = start(["node", REFERENCE], {
      stdin: Bun.file(input),
      stdout: Bun.file(output),
      stderr: "ignore",
    });
    await child.exited;
    for (const line of (await Bun.file(output).text()).split("\n").slice(0, -1)) {
      const [sent = "", broke] = line.split(" ");
      outcomes.push(outcomeOf(framesOf(Buffer.from(sent, "hex")), broke));
    }
    if (outcomes.length < batch.length) outcomes.push(undefined);
  }
  return outcomes;
}

async function ourOutcomes(batch: readonly Buffer[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const bytes of batch) outcomes.push(outcomeOf((await exchange([bytes], OPTIONS)).frames));
  return outcomes;
}

interface Compared {
  /** One a connection; undefined where both agree, or Node did not survive. */
  readonly differences: readonly (Difference | undefined)[];
  /** Both answered something. */
  readonly answered: number;
  readonly lost: number;
}

async function compare(batch: readonly Buffer[]): Promise<Compared> {
  const [theirs, ours] = await Promise.all([theirOutcomes(batch), ourOutcomes(batch)]);
  const both = ours.map((our, at) => [our, theirs[at], batch[at] ?? Buffer.alloc(0)] as const);
  return {
    differences: both.map(([our, their, bytes]) =>
      their === undefined || agree(our, their) ? undefined : { ours: our, theirs: their, bytes },
    ),
    answered: both.filter(([our]) => our.refused === undefined && our.answered !== "").length,
    lost: theirs.filter((their) => their === undefined).length,
  };
}

/** Those that nothing explains, as they are or without the frames that one of both makes nothing of. */
async function unexplained(differences: readonly (Difference | undefined)[]): Promise<Difference[]> {
  const strange = differences.filter((one) => one !== undefined && explanationOf(one) === undefined);
  if (strange.length === 0) return [];
  const { differences: left } = await compare(
    strange.map((one) => meaningful(one?.bytes ?? Buffer.alloc(0))),
  );
  return left.filter((one) => one !== undefined).filter((one) => explanationOf(one) === undefined);
}

const noNode = Bun.which("node") === null;
if (noNode) process.stdout.write("skipped: no node for a second opinion\n");

test.skipIf(noNode)("each difference is still one, and has its section", async () => {
  const files = readdirSync(CORPUS).sort();
  const texts = files.map((file) => readFileSync(join(CORPUS, file), "utf8").split("\n"));
  expect(texts.filter(([comment]) => !/^# Section [\d.]+[,:]/.test(comment ?? ""))).toEqual([]);
  const batch = texts.map((lines) => Buffer.from(lines.slice(1).join(""), "hex"));
  const { differences } = await compare(batch);
  expect(differences.map((one, at) => [files[at], one && explanationOf(one)])).toEqual(
    files.map((file) => [file, explanationNamed(file)]),
  );
  // What one of both makes nothing of is no difference without it.
  const silent = batch.filter((_, at) => explanationNamed(files[at] ?? "") === undefined);
  expect((await compare(silent.map(meaningful))).differences.filter((one) => one !== undefined)).toEqual([]);
  expect(new Set(files.map(explanationNamed))).toEqual(new Set([...EXPLANATIONS, undefined]));
});

/** A file has the name of what explains it, or begins so. */
function explanationNamed(file: string): string | undefined {
  return EXPLANATIONS.find((name) => file.startsWith(name));
}

test.skipIf(noNode)(`${INPUTS} connections`, async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const memory = new MemoryWatch(INPUTS);
  let [answered, lost] = [0, 0];
  for (let input = 0; input < INPUTS; input += BATCH) {
    memory.check(input, { seed });
    const count = Math.min(BATCH, INPUTS - input);
    const batch = Array.from({ length: count }, () => randomConnection(random));
    const compared = await compare(batch);
    answered += compared.answered;
    lost += compared.lost;
    for (const { ours, theirs, bytes } of await unexplained(compared.differences)) {
      const from = { seed, input, sent: bytes.toString("hex") };
      expect({ ...from, ...ours }).toEqual({ ...from, ...theirs });
    }
  }
  expect(lost).toBeLessThan(2 + INPUTS / 1000);
  // Mostly refused connections would be no test.
  expect(answered).toBeGreaterThan(INPUTS / 10);
});
