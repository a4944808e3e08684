/** The table of h2spec's cases is whole, and each test that it names is one of ours. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { h2specTable } from "./h2spec-table.ts";

/** Names of tests by their group, as the source has them: with `${…}` where a loop fills in. */
function namesIn(file: string): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  let names: string[] = [];
  const calls =
    /\b(describe|test|breaks|resets|passes|malformed|broken)\(\s*(?:(["`])((?:\\.|(?!\2).)*)\2|(\w+),)/g;
  for (const [, call, , literal, variable] of readFileSync(join(import.meta.dir, file), "utf8").matchAll(
    calls,
  )) {
    if (call === "describe" && literal !== undefined) {
      names = [];
      groups.set(literal, names);
    } else names.push(literal ?? `\${${variable}}`);
  }
  return groups;
}

/** Whether a test of this name is made by one of these; what a loop fills in must stand in the file as a value. */
function made(name: string, patterns: readonly string[], source: string): boolean {
  return patterns.some((pattern) => {
    const parts = pattern.split(/\$\{[^}]*\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const filled = new RegExp(`^${parts.join("(.+)")}$`).exec(name)?.slice(1);
    return filled?.every((value) => source.includes(`"${value}"`) || numberStands(value, source)) ?? false;
  });
}

function numberStands(value: string, source: string): boolean {
  if (!/^\d+$/.test(value)) return false;
  const written = [...source.matchAll(/\b(2 \*\* \d+|0x[\da-f]+|\d+)\b/g)].map(([text]) => {
    const [, power] = /^2 \*\* (\d+)$/.exec(text) ?? [];
    return power === undefined ? Number(text) : 2 ** Number(power);
  });
  return written.includes(Number(value));
}

test("147 cases, each with a test that is there", () => {
  const table = h2specTable();
  expect(table.size).toBe(147);
  const missing = [...table].filter(([, { file, group, test: name }]) => {
    const source = readFileSync(join(import.meta.dir, file), "utf8");
    return !made(name, namesIn(file).get(group) ?? [], source);
  });
  expect(missing).toEqual([]);
});

const loop = (name: string): string => `\${${name}}`;

test("a test that is not there is told", () => {
  const patterns = ["even", `8.2.2 ${loop("name")}: ${loop("value")}`];
  const source = '["te", "gzip"]';
  expect(["even", "8.2.2 te: gzip"].map((name) => made(name, patterns, source))).toEqual([true, true]);
  expect(["odd", "8.2.2 te: br"].map((name) => made(name, patterns, source))).toEqual([false, false]);
});
