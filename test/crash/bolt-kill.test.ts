/** `kill -9` of a process that writes, at the places where a commit is most delicate: what it acknowledged is there, nothing is there by half. */
import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../../src/bolt/db.ts";
import { randomFrom, testSeed } from "../support/random.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 12 : 200;
const POINTS = [
  "bolt.beforeGrow",
  "bolt.beforePageWrite",
  "bolt.beforeDataSync",
  "bolt.beforeMeta",
  "bolt.afterMeta",
  "bolt.beforeMetaSync",
] as const;
const FILLER_BYTES = 50_000;
const LARGEST_BYTES = 32 * 1024 * 1024;
const CHILD_TIMEOUT_MS = 60_000;
const CHILD = join(import.meta.dir, "bolt-kill-child.ts");

/** Runs the writer until its failpoint kills it; the numbers that it acknowledged. */
async function writeUntilKilled(path: string, first: number, failpoint: string): Promise<number[]> {
  const filler = failpoint.startsWith("bolt.beforeGrow") ? FILLER_BYTES : 0;
  const child = Bun.spawn([process.execPath, CHILD, path, String(first), String(filler)], {
    timeout: CHILD_TIMEOUT_MS,
    env: { ...process.env, BUNKERD_FAILPOINTS: failpoint },
    stdout: "pipe",
    stderr: "pipe",
    stdin: "ignore",
  });
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  expect([child.signalCode, errors]).toEqual(["SIGKILL", ""]);
  return output
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);
}

/** Numbers whose pair is there; throws when one is there by half. */
function pairsIn(db: Db): Set<number> {
  const found = new Set<number>();
  db.view((tx) => {
    const bucket = tx.bucket("pairs");
    const numbersOf =
      (prefix: string, visit: (n: number) => void) => (key: Uint8Array, value: Uint8Array | undefined) => {
        const name = Buffer.from(key).toString();
        if (value === undefined || !name.startsWith(prefix)) return;
        const n = Number(name.slice(prefix.length));
        const expected = new Uint8Array(new Float64Array(1 + (n % 300)).fill(n).buffer);
        if (Buffer.compare(value, expected) !== 0) throw new Error(`${name} has another value`);
        visit(n);
      };
    bucket?.forEach(numbersOf("left-", (n) => found.add(n)));
    let rights = 0;
    for (let i = 0; i < 7; i++) {
      bucket?.bucket(`nested-${i}`)?.forEach(
        numbersOf("right-", (n) => {
          rights++;
          if (!found.has(n)) throw new Error(`right-${n} without left-${n}`);
        }),
      );
    }
    if (rights !== found.size) throw new Error(`${found.size} left, ${rights} right`);
  });
  return found;
}

test("a killed writer loses nothing that it acknowledged", async () => {
  const random = randomFrom(testSeed());
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-bolt-"));
  try {
    const path = join(folder, "test.db");
    let first = 1;
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const point = POINTS[round % POINTS.length] ?? "bolt.beforeMeta";
      // The file grows only now and then, and not for ever.
      const visit = 1 + random.below(point === "bolt.beforeGrow" ? 2 : 60);
      if (existsSync(path) && statSync(path).size > LARGEST_BYTES) rmSync(path);
      const acknowledged = await writeUntilKilled(path, first, `${point}=kill@${visit}`);
      const label = `seed ${random.seed}, round ${round}, ${point}@${visit}`;
      const db = Db.open(path);
      expect(db.check(), label).toEqual([]);
      const there = pairsIn(db);
      await db.close();
      const last = Math.max(first, ...there, ...acknowledged);
      // A later function of the same writers deletes what is 500 older.
      const missing = acknowledged.filter((n) => n > last - 480 && !there.has(n));
      expect(missing, label).toEqual([]);
      expect(
        [...there].filter((n) => n % 4 === 3),
        label,
      ).toEqual([]);
      first = last + 10;
      total += acknowledged.length;
    }
    expect(total).toBeGreaterThan(ROUNDS * 20);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 3_600_000);
