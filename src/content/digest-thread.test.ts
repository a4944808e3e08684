import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../test/support/content-suite.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { BlobWriter } from "../model/content.ts";
import { openBlobs } from "./blobs.ts";
import { DigestThread } from "./digest-thread.ts";

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

test("digests run side by side, and say what they failed of", async () => {
  const digests = new DigestThread();
  const one = await digests.begin(file.fd, 5);
  const other = await digests.begin(file.fd, blob.length);
  expect(await codeOf(digests.begin(file.fd, blob.length + 1))).toBe("DataLoss");
  expect(await codeOf(digests.begin(-1, 1))).toBe("DataLoss");
  await Promise.all([one.update(Buffer.from("hello")), other.update(Buffer.from("world"))]);
  expect(one.digest()).toBe(sumOf(Buffer.concat([blob.subarray(0, 5), Buffer.from("hello")])));
  expect(other.digest()).toBe(sumOf(Buffer.concat([blob, Buffer.from("world")])));
  await one.writeBack(file.fd, 0, blob.length);
  one.close();
  one.close();
  other.close();
  expect(await codeOf(one.update(blob))).toBe("Internal");
  expect(statSync(join(root, "file")).size).toBe(blob.length);
});
