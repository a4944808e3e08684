/** A disk that is really full: a small tmpfs. */
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../../src/bolt/db.ts";
import { isError } from "../../src/model/errors.ts";

const MIB = 1024 * 1024;
/** Put by each update. */
const KEYS = 30;

test("a full disk fails the commit, says so, and the database goes on", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-full-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], { encoding: "utf8" });
  if (mounted.status !== 0) {
    rmSync(folder, { recursive: true });
    process.stdout.write(`skipped: mount needs root: ${mounted.stderr}`);
    return;
  }
  try {
    await fillUp(join(folder, "full.db"));
    await findNoRoom(folder);
  } finally {
    spawnSync("umount", ["-l", folder]);
    rmSync(folder, { recursive: true });
  }
});

async function fillUp(path: string): Promise<void> {
  const db = Db.open(path, { verify: true });
  await db.update((tx) => tx.createBucket("b").put("first", new Uint8Array(100)));
  let failure: unknown;
  let kept = 0;
  for (let i = 0; i < 100 && failure === undefined; i++) {
    await db
      .update((tx) => {
        for (let k = 0; k < KEYS; k++) tx.bucket("b")?.put(`k${i}-${k}`, new Uint8Array(3000).fill(i));
      })
      .then(
        () => {
          kept += KEYS;
        },
        (error: unknown) => {
          failure = error;
        },
      );
  }
  expect(isError(failure, "ResourceExhausted"), String(failure)).toBe(true);
  expect(String(failure)).toContain(`of database "${path}": ENOSPC`);
  expect(kept).toBeGreaterThan(500);
  // Readers see what was acknowledged; small writers still find room, and so do larger ones once something is deleted.
  const count = (): number => db.view((tx) => tx.bucket("b")?.stats().keys ?? 0);
  expect(count()).toBe(kept + 1);
  await db.update((tx) => tx.bucket("b")?.put("first", new Uint8Array(200)));
  for (let i = 0; i < KEYS; i++) await db.update((tx) => tx.bucket("b")?.delete(`k0-${i}`));
  await db.update((tx) => tx.bucket("b")?.put("again", new Uint8Array(20_000)));
  expect(count()).toBe(kept - KEYS + 2);
  expect(db.check()).toEqual([]);
  await db.close();
}

async function findNoRoom(folder: string): Promise<void> {
  writeFileSync(join(folder, "filler"), new Uint8Array(bytesLeft(folder)));
  const path = join(folder, "another.db");
  const told = await Promise.resolve()
    .then(() => Db.open(path))
    .catch((error: unknown) => error);
  expect(isError(told, "ResourceExhausted"), String(told)).toBe(true);
  expect(readdirSync(folder).sort()).toEqual(["filler", "full.db"]);
}

/** Bytes that are left. */
function bytesLeft(folder: string): number {
  const left = Number(
    spawnSync("df", ["--output=avail", "-B1", folder], { encoding: "utf8" }).stdout.split("\n")[1],
  );
  return Math.min(left, 4 * MIB);
}
