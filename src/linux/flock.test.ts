import { expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { flockOwners, tryFlock } from "./flock.ts";

test("flock excludes other open files, and tells their owner", () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-flock-"));
  const path = join(folder, "lock");
  const [one, two] = [openSync(path, "w"), openSync(path, "r+")];
  try {
    expect(flockOwners(one)).toEqual([]);
    expect(tryFlock(one, false)).toBe(true);
    expect(tryFlock(two, false)).toBe(true);
    expect(tryFlock(two, true)).toBe(false);
    expect(flockOwners(two)).toContain(process.pid);
    closeSync(one);
    expect(tryFlock(two, true)).toBe(true);
  } finally {
    closeSync(two);
    rmSync(folder, { recursive: true });
  }
});

test("flock of what is no open file throws", () => {
  expect(() => tryFlock(999_999, true)).toThrow("errno 9");
});
