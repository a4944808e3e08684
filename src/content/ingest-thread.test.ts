import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../test/support/content-suite.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { BlobWriter } from "../model/content.ts";
import { openBlobs } from "./blobs.ts";
import { IngestThreads } from "./ingest-thread.ts";

const MIB = 1 << 20;
const blob = Buffer.alloc(12 * MIB);
for (let at = 0; at < blob.length; at += 4) blob.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at);
const sumOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

let root: string;
let file: FileHandle;
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "bunkerd-content-"));
  writeFileSync(join(root, "file"), blob);
  file = await open(join(root, "file"), "r+");
});
afterEach(async () => {
  await file.close();
  rmSync(root, { recursive: true });
});

/** One buffer for all messages, as a call's is. */
const memory = new Uint8Array(new SharedArrayBuffer(MIB));

async function write(writer: BlobWriter, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += MIB) {
    memory.set(blob.subarray(at, at + MIB));
    await writer.write(memory);
    expect(writer.digest()).toBe(sumOf(blob.subarray(0, at + MIB)));
  }
}

test("a large ingest has the same digests, wherever they are computed, also when it is resumed or begins anew", async () => {
  const blobs = openBlobs({ root, clock: systemClock(), logger: silentLogger });
  const first = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  await write(first, 0, 6 * MIB);
  await first.close();
  const second = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  expect(second.status().offsetBytes).toBe(6 * MIB);
  expect(second.digest()).toBe(sumOf(blob.subarray(0, 6 * MIB)));
  await second.truncate();
  await write(second, 0, 11 * MIB);
  // What is not shared is the writer's until the call has ended, and so is a copy.
  const rest = Uint8Array.from(blob.subarray(11 * MIB));
  await second.write(rest);
  rest.fill(0);
  await second.commit(BigInt(blob.length), sumOf(blob));
  await second.close();
  expect(blobs.sizeOf(sumOf(blob))).toBe(blob.length);
});

test("writes that overlap are carried out in order, and have the digests of their ends", async () => {
  const blobs = openBlobs({ root, clock: systemClock(), logger: silentLogger });
  const writer = await blobs.openIngest(blobs.lockIngest("r"), 0n);
  await write(writer, 0, 5 * MIB);
  expect(writer.overlaps).toBe(true);
  const under = [5, 6, 7].map((at) => {
    const data = new Uint8Array(new SharedArrayBuffer(MIB));
    data.set(blob.subarray(at * MIB, (at + 1) * MIB));
    return writer.write(data);
  });
  expect(await Promise.all(under)).toEqual([6, 7, 8].map((end) => sumOf(blob.subarray(0, end * MIB))));
  expect(writer.status().offsetBytes).toBe(8 * MIB);
  await writer.truncate();
  expect(writer.overlaps).toBe(false);
  await write(writer, 0, 12 * MIB);
  await writer.commit(BigInt(blob.length), sumOf(blob));
  await writer.close();
});

test("ingests run side by side, and say what they failed of", async () => {
  const threads = new IngestThreads();
  const one = await threads.begin(file.fd, 5);
  const other = await threads.begin(file.fd, blob.length);
  expect(await codeOf(threads.begin(file.fd, blob.length + 1))).toBe("DataLoss");
  expect(await codeOf(threads.begin(-1, 1))).toBe("DataLoss");
  const [hello, world] = [Buffer.from("hello"), Buffer.from("world")];
  const sums = await Promise.all([one.write(file.fd, 5, hello), other.write(file.fd, blob.length, world)]);
  expect(sums).toEqual([
    sumOf(Buffer.concat([blob.subarray(0, 5), hello])),
    sumOf(Buffer.concat([blob, world])),
  ]);
  expect([one.digest(), other.digest()]).toEqual(sums);
  one.close();
  one.close();
  other.close();
  expect(await codeOf(one.write(file.fd, 0, blob))).toBe("Internal");
  expect(readFileSync(join(root, "file"))).toEqual(
    Buffer.concat([blob.subarray(0, 5), hello, blob.subarray(10), world]),
  );
});

test("behind a write that fails nothing is written", async () => {
  const thread = await new IngestThreads().begin(file.fd, 0);
  const readOnly = await open(join(root, "file"), "r");
  const writes = [
    thread.write(file.fd, 0, Buffer.from("one")),
    thread.write(readOnly.fd, 3, Buffer.from("two")),
    thread.write(file.fd, 6, Buffer.from("three")),
  ];
  expect(await Promise.all(writes.map(codeOf))).toEqual([undefined, "DataLoss", "DataLoss"]);
  await readOnly.close();
  expect(readFileSync(join(root, "file"))).toEqual(Buffer.concat([Buffer.from("one"), blob.subarray(3)]));
  expect(thread.digest()).toBe(sumOf(Buffer.from("one")));
  thread.close();
});
