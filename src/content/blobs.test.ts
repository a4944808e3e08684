import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../test/support/content-suite.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { BlobStore } from "../model/content.ts";
import { openBlobs } from "./blobs.ts";

const scope = { namespace: "any" };

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
  for (let n = 0; n < 1000; n++) writeFileSync(join(folderOf("r"), `f${n}`), "");
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

test("an ingest whose ref cannot be read just now outlives a collection, one without a ref does not", async () => {
  for (const ref of ["unread", "none"]) await (await blobs.openIngest(blobs.lockIngest(ref), 0n)).close();
  rmSync(join(folderOf("none"), "ref"));
  rmSync(join(folderOf("unread"), "ref"));
  // In place of a disk that fails, which reading answers neither by a text nor by its absence.
  symlinkSync("ref", join(folderOf("unread"), "ref"));
  expect(await blobs.removeIngestsExcept(() => new Set())).toBe(1);
  expect([existsSync(folderOf("unread")), existsSync(folderOf("none"))]).toEqual([true, false]);
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
    expect(await codeOf(blobs.open(scope, hostile))).toBe("InvalidArgument");
  }
  expect(await codeOf(blobs.open(scope, digest))).toBe("NotFound");
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

describe("fill", () => {
  const large = Buffer.from(Array.from({ length: 3_000_000 }, (_, at) => (at * 7) % 253));
  const sum = `sha256:${createHash("sha256").update(large).digest("hex")}`;
  const pathOf = (): string => join(root, "blobs", ...sum.split(":"));
  const targetsOf = (size: number, each: number): Uint8Array[] =>
    Array.from(
      { length: Math.ceil(size / each) },
      (_, at) => new Uint8Array(Math.min(each, size - at * each)),
    );

  beforeEach(async () => {
    const writer = await blobs.openIngest(blobs.lockIngest("l"), 0n);
    await writer.write(large);
    await writer.commit(BigInt(large.length), sum);
    await writer.close();
  });

  test("what is in memory is there at once", async () => {
    const reader = await blobs.open(scope, sum);
    const targets = targetsOf(1_000_000, 300_000);
    expect(reader.fill(targets, 12_345)).toBeUndefined();
    expect(Buffer.compare(Buffer.concat(targets), large.subarray(12_345, 1_012_345))).toBe(0);
    await reader.close();
  });

  test("more targets than one call takes, and a file that is on disk only", async () => {
    // Its clean pages leave the page cache: dd(1), "nocache".
    expect(Bun.spawnSync(["dd", `if=${pathOf()}`, "iflag=nocache", "count=0", "status=none"]).exitCode).toBe(
      0,
    );
    const reader = await blobs.open(scope, sum);
    const targets = targetsOf(large.length, 1000);
    await reader.fill(targets, 0);
    expect(Buffer.compare(Buffer.concat(targets), large)).toBe(0);
    await reader.close();
  });

  test("a file that has become shorter is DataLoss", async () => {
    const reader = await blobs.open(scope, sum);
    truncateSync(pathOf(), 2_000_000);
    const filled = reader.fill(targetsOf(1_500_000, 100_000), 1_000_000);
    expect(await codeOf(Promise.resolve(filled))).toBe("DataLoss");
    await reader.close();
  });
});
