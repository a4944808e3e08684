import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isError } from "../model/errors.ts";
import { createDirectories, createDirectory } from "./directories.ts";

let folder = "";
const tmp = process.env["TMPDIR"];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-daemon-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  if (tmp === undefined) delete process.env["TMPDIR"];
  else process.env["TMPDIR"] = tmp;
});

const modeOf = (path: string): number => statSync(path).mode & 0o777;

test("root, state and temp are made with containerd's modes; temp is where temporary files go", () => {
  const [root, state, temp] = ["a/root", "b/state", "c/temp"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  createDirectories({ root, state, temp });
  expect([root, state, temp].map(modeOf)).toEqual([0o700, 0o711, 0o700]);
  expect(process.env["TMPDIR"]).toBe(temp);
});

test("the root of an older containerd becomes private, its state stays as it is", () => {
  const [root, state] = [join(folder, "root"), join(folder, "state")];
  for (const path of [root, state]) {
    mkdirSync(path);
    chmodSync(path, 0o755);
  }
  createDirectories({ root, state, temp: "" });
  expect([root, state].map(modeOf)).toEqual([0o700, 0o755]);
});

test("what is in the way is named", () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  for (const path of [file, join(file, "below")]) {
    try {
      createDirectory("metadata", path, 0o711);
      throw new Error("a file became a folder");
    } catch (error) {
      expect(isError(error, "FailedPrecondition")).toBe(true);
      expect(String(error)).toEndWith(`metadata directory ${path}: not a directory`);
    }
  }
});
