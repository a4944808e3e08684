import { afterEach, beforeEach, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeFollowing, followLog, parseLogLine, readLog } from "./logs.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-logs-"));
  path = join(folder, "0.log");
});
afterEach(() => rmSync(folder, { recursive: true }));

const line = (text: string, tag = "F", second = 0): string =>
  `2026-01-01T00:00:0${second}.5Z stdout ${tag} ${text}\n`;

test("a line and what is none", () => {
  expect(parseLogLine(line("a b ").trimEnd().concat(" "))).toMatchObject({
    stream: "stdout",
    text: "a b ",
    full: true,
  });
  expect(parseLogLine("2026-01-01T00:00:00Z stderr P part")?.full).toBe(false);
  expect(parseLogLine("2026-01-01T00:00:00Z stdout F")?.text).toBe("");
  expect(parseLogLine("words")).toBeUndefined();
});

test("tail, since and earlier rotations", () => {
  writeFileSync(`${path}.20260101-000000`, line("old"));
  writeFileSync(path, line("one", "F", 1) + line("tw", "P", 2) + line("o", "F", 2) + line("three", "F", 3));
  const texts = (options = {}) => readLog(path, options).map(({ text }) => text);
  expect(texts()).toEqual(["old", "one", "tw", "o", "three"]);
  expect(texts({ tailLines: 2 })).toEqual(["tw", "o", "three"]);
  expect(texts({ tailLines: 0 })).toEqual([]);
  const before = (options = {}) => {
    const { earlier, skipped } = beforeFollowing(path, options);
    return [earlier.map(({ text }) => text), skipped];
  };
  expect(before()).toEqual([["old"], 0]);
  expect(before({ tailLines: 2 })).toEqual([[], 1]);
  expect(before({ tailLines: 4 })).toEqual([["old"], 0]);
  expect(before({ tailLines: 0 })).toEqual([[], 4]);
  expect(texts({ sinceMs: Date.parse("2026-01-01T00:00:02Z") })).toEqual(["tw", "o", "three"]);
});

test("follows what is written, through a rotation, to the end", async () => {
  writeFileSync(path, line("one"));
  const ended = Promise.withResolvers<void>();
  const seen: string[] = [];
  for await (const { text } of followLog(path, { ended: ended.promise })) {
    seen.push(text);
    if (text === "one") appendFileSync(path, line("two").slice(0, 20));
    if (text === "one") queueMicrotask(() => appendFileSync(path, line("two").slice(20)));
    if (text === "two") {
      appendFileSync(path, line("last of the old"));
      renameSync(path, `${path}.20260101-000000`);
      writeFileSync(path, line("new"));
    }
    if (text === "new") ended.resolve();
  }
  expect(seen).toEqual(["one", "two", "last of the old", "new"]);
});
