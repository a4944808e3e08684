import { afterAll, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCached } from "./cached-read.ts";

const folder = mkdtempSync(join(tmpdir(), "bunkerd-cached-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, "file");
writeFileSync(path, "0123456789");

const textOf = (targets: readonly Uint8Array[]): string[] =>
  targets.map((target) => `${Buffer.from(target)}`);

test("targets are filled in turn from a position on", () => {
  const fd = openSync(path, "r");
  const whole = Buffer.alloc(8, ".");
  const targets = [whole.subarray(0, 2), whole.subarray(4, 7)];
  expect(readCached(fd, targets, 3)).toBe(5);
  expect(textOf(targets)).toEqual(["34", "567"]);
  expect(`${whole}`).toBe("34..567.");
  closeSync(fd);
});

test("less comes at the end of the file, nothing behind it and from what is no file", () => {
  const fd = openSync(path, "r");
  expect(readCached(fd, [Buffer.alloc(4), Buffer.alloc(4)], 5)).toBe(5);
  expect(readCached(fd, [Buffer.alloc(4)], 10)).toBe(0);
  closeSync(fd);
  expect(readCached(-1, [Buffer.alloc(4)], 0)).toBe(0);
});
