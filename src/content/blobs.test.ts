import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../test/support/content-suite.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { BlobStore } from "../model/content.ts";
import { openBlobs } from "./blobs.ts";

let root: string;
let blobs: BlobStore;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "bunkerd-content-"));
  blobs = openBlobs({ root, clock: systemClock(), logger: silentLogger });
});
afterEach(() => rmSync(root, { recursive: true }));

const bytes = new TextEncoder().encode("hello");
const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const folderOf = (ref: string): string =>
  join(root, "ingest", createHash("sha256").update(ref).digest("hex"));

test("who opens an ingest that is being removed waits for the end of it", async () => {
  const first = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  await first.write(bytes);
  await first.close();
  for (let n = 0; n < 3000; n++) writeFileSync(join(folderOf("r"), `f${n}`), "");
  const removal = blobs.removeIngest("r");
  const second = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  await removal;
  expect(second.status().offsetBytes).toBe(0);
  await second.write(bytes);
  await second.commit(5n, digest);
  expect(blobs.sizeOf(digest)).toBe(5);
});

test("a file that somebody else wrote into is not taken for what was summed", async () => {
  const writer = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  await writer.write(bytes);
  appendFileSync(join(folderOf("r"), "data"), "!");
  expect(await codeOf(writer.commit(5n, digest))).toBe("FailedPrecondition");
  expect(blobs.sizeOf(digest)).toBeUndefined();
});

test("a lock is one writer's, and says since when", () => {
  const lock = blobs.lockIngest("r");
  expect(() => blobs.lockIngest("r")).toThrow(/^ref r locked for [\d.]+s \(since .*\): unavailable$/);
  lock.release();
  const next = blobs.lockIngest("r");
  lock.release();
  expect(() => blobs.lockIngest("r")).toThrow("unavailable");
  next.release();
});

test("what is no digest names no path", async () => {
  for (const hostile of ["../../etc/passwd", "sha256:../../../../etc/passwd", "", "sha256:", "x:y"]) {
    expect(blobs.sizeOf(hostile)).toBeUndefined();
    expect(await codeOf(blobs.open(hostile))).toBe("InvalidArgument");
  }
  expect(await codeOf(blobs.open(digest))).toBe("NotFound");
});

test("hostile refs stay within the folder of ingests", async () => {
  for (const ref of ["..", "../../x", "/etc/passwd", "\0", "x".repeat(10_000)]) {
    const writer = await blobs.openIngest(blobs.lockIngest(ref), 0n);
    await writer.close();
    expect(await blobs.ingestStatus(ref)).toMatchObject({ ref });
  }
  expect(readdirSync(root)).toEqual(["ingest"]);
  expect(readdirSync(join(root, "ingest")).every((name) => /^[0-9a-f]{64}$/.test(name))).toBe(true);
});
