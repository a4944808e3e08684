/**
 * Runs `bun test` once a file, so that one file's hang or leak is its own, and ends in `N passed, N failed`. A file that fails is printed whole and
 * run once more: what passes then is counted as passed, and named as unsteady before the last line, for somebody to look into.
 *
 * A file that leaves a process, a mount or something in its temporary folder has failed. Where `BUNKERD_TEST_MACHINE=own` says that nobody else
 * uses the machine, so has one that leaves something on the rest of it: what stays to the end is told with the files whose it may be, which then
 * run once more.
 *
 * Files run one after another, which keeps what they measure true; only those of {@link BESIDE} run beside the others from the start, again one
 * after another.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Left, leftIn, newPlace, OwnMachine, wordsOf } from "./leftovers.ts";

const FILE_TIMEOUT_MS = Number(
  process.env["BUNKERD_TEST_FILE_TIMEOUT_MS"] ?? (process.env["BUNKERD_TEST_LONG"] ? 7_200_000 : 600_000),
);

/**
 * Files that wait for most of their time and measure nothing that a busy machine changes, with what stands before their command: the soak, which has
 * to last, takes what of the processors nobody else wants.
 */
const BESIDE: Readonly<Record<string, readonly string[]>> = process.env["BUNKERD_TEST_LONG"]
  ? {}
  : {
      "test/conformance/http2/soak.test.ts": ["chrt", "--idle", "0"],
      // Memory that settles: its own daemon, network namespace and ids.
      "test/integration/cri/scale.test.ts": [],
    };

const machine = process.env["BUNKERD_TEST_MACHINE"] === "own" ? new OwnMachine() : undefined;

/** So many of the slowest files are named at the end. */
const SLOWEST = 15;

function testFiles(path: string): string[] {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => join(path, name))
    .sort();
}

interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
}

function count(output: string, word: string): number {
  return Number(new RegExp(`^\\s*(\\d+) ${word}$`, "m").exec(output)?.[1] ?? 0);
}

const durations = new Map<string, number>();
const running = new Set<string>();

async function runFile(file: string, prefix: readonly string[] = []): Promise<Outcome> {
  const startedAt = performance.now();
  const place = newPlace();
  running.add(file);
  const child = Bun.spawn([...prefix, process.execPath, "test", "--timeout", "120000", `./${file}`], {
    stdout: "pipe",
    stderr: "pipe",
    stdin: "ignore",
    env: { ...process.env, ...place.env },
    timeout: FILE_TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const output = stdout + stderr;
  const outcome = {
    passed: count(output, "pass"),
    failed: count(output, "fail"),
    skipped: count(output, "skip"),
  };
  if (code !== 0 && outcome.failed === 0) outcome.failed = 1;
  if (outcome.passed + outcome.failed + outcome.skipped === 0) outcome.failed = 1;
  const left = await leftIn(place);
  if (left.length > 0 && outcome.failed === 0) outcome.failed = 1;
  running.delete(file);
  machine?.after([file, ...running], outcome.failed > 0);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  durations.set(file, (durations.get(file) ?? 0) + Number(seconds));
  process.stdout.write(
    `${outcome.failed === 0 ? "ok  " : "FAIL"} ${file} (${outcome.passed} passed, ${seconds} s)\n`,
  );
  for (const trace of left) process.stdout.write(`left: ${trace}\n`);
  if (outcome.failed > 0) process.stdout.write(`${output}\n`);
  else
    process.stdout.write(
      output
        .split("\n")
        .filter((line) => line.startsWith("skipped:"))
        .map((line) => `     ${line}\n`)
        .join(""),
    );
  return outcome;
}

const total: Outcome = { passed: 0, failed: 0, skipped: 0 };
const unsteady: string[] = [];

function add(outcome: Outcome): void {
  total.passed += outcome.passed;
  total.failed += outcome.failed;
  total.skipped += outcome.skipped;
}

async function runAgain(file: string): Promise<void> {
  const outcome = await runFile(file);
  if (outcome.failed === 0) unsteady.push(file);
  add(outcome);
}

/** The files that may have left something on the machine run again: what they leave then is no accident. */
async function lookAround(machine: OwnMachine): Promise<void> {
  const suspects = new Set((await toldLeft(machine)).flatMap(({ files }) => files));
  for (const file of suspects) {
    const outcome = await runFile(file);
    if (outcome.failed === 0) unsteady.push(file);
    total.failed += outcome.failed;
  }
  if ((await toldLeft(machine)).length > 0) total.failed += 1;
}

async function toldLeft(machine: OwnMachine): Promise<Left[]> {
  const left = await machine.left();
  for (const each of left) process.stdout.write(`left: ${wordsOf(each)}\n`);
  return left;
}

const files = process.argv.slice(2).flatMap(testFiles);
const alone = files.filter((file) => !(file in BESIDE));
const beside = (async () => {
  const failed: string[] = [];
  for (const file of files.filter((each) => each in BESIDE)) {
    const outcome = await runFile(file, alone.length > 0 ? BESIDE[file] : []);
    if (outcome.failed > 0) failed.push(file);
    else add(outcome);
  }
  return failed;
})();
for (const file of alone) {
  const outcome = await runFile(file);
  if (outcome.failed > 0) await runAgain(file);
  else add(outcome);
}
for (const file of await beside) await runAgain(file);

const slowest = [...durations].sort(([, a], [, b]) => b - a).slice(0, SLOWEST);
if (files.length > SLOWEST)
  for (const [file, seconds] of slowest) process.stdout.write(`slow: ${seconds.toFixed(1)} s ${file}\n`);
if (machine !== undefined) await lookAround(machine);
for (const file of unsteady) process.stdout.write(`unsteady: ${file} failed at first, see above\n`);
process.stdout.write(
  `${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ""}\n`,
);
process.exit(total.failed === 0 ? 0 : 1);
