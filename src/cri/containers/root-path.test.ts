import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathInRoot, pathWithinRoot } from "./root-path.ts";

const root = mkdtempSync(join(tmpdir(), "bunkerd-root-"));
afterAll(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, "data/sub"), { recursive: true });
symlinkSync("/data", join(root, "absolute"));
symlinkSync("../../../../etc", join(root, "data/out"));
symlinkSync("loop", join(root, "loop"));

test.each([
  ["/data/sub", "data/sub"],
  ["absolute/sub", "data/sub"],
  ["../../data", "data"],
  ["data/out/passwd", "etc/passwd"],
  ["not/there", "not/there"],
  ["/", ""],
])("%s is %s of the root", (path, found) => {
  expect(pathInRoot(root, path)).toBe(join(root, found));
});

test.each(["data/sub", "data/../data/sub", "not/there", "."])("%s stays within the root", (path) => {
  expect(pathWithinRoot(root, path)).toBe(join(root, path));
});

test.each(["/data", "..", "data/../../data", "data/out/passwd", "absolute/sub"])(
  "%s leads out of it",
  (path) => {
    expect(() => pathWithinRoot(root, path)).toThrow(`openat ${path}: path escapes from parent`);
  },
);

test("links that go round are refused", () => {
  expect(() => pathInRoot(root, "loop/x")).toThrow("too many levels of symbolic links");
});
