import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dropCleanFilePages, droppableMappings } from "./memory.ts";

const section = (header: string, fields: Record<string, number>): string =>
  `${header}\n${Object.entries(fields)
    .map(([name, kb]) => `${name}: ${kb} kB\n`)
    .join("")}VmFlags: rd mr\n`;

const clean = { Rss: 64, Private_Dirty: 0, Anonymous: 0, Locked: 0 };

test("only clean, read-only mappings of files may be dropped", () => {
  const smaps = [
    section("00200000-00300000 r-xp 00000000 fe:01 42                         /usr/bin/bunkerd", clean),
    section("00300000-00400000 r--p 00100000 fe:01 42                         /usr/bin/a b", {
      ...clean,
      Rss: 8,
    }),
    section("00400000-00500000 r--p 00200000 fe:01 42                         /lib/relro.so", {
      ...clean,
      Anonymous: 4,
    }),
    section("00500000-00600000 r--p 00200000 fe:01 42                         /lib/dirty.so", {
      ...clean,
      Private_Dirty: 4,
    }),
    section("00600000-00700000 rw-p 00200000 fe:01 42                         /lib/data.so", clean),
    section("00700000-00800000 r--s 00200000 fe:01 42                         /run/shared", clean),
    section("00800000-00900000 r-xp 00000000 00:00 0                          [vdso]", clean),
    section("00900000-00a00000 r--p 00000000 00:00 0 ", clean),
    section("00a00000-00b00000 r-xp 00000000 fe:01 42                         /lib/locked.so", {
      ...clean,
      Locked: 4,
    }),
  ].join("");
  expect(droppableMappings(smaps)).toEqual([
    { start: 0x200000n, end: 0x300000n, residentKb: 64 },
    { start: 0x300000n, end: 0x400000n, residentKb: 8 },
  ]);
  expect(droppableMappings("")).toEqual([]);
});

test("this process gives back pages and goes on", () => {
  const resident = (): number =>
    Number(/^RssFile:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
  const before = resident();
  expect(dropCleanFilePages()).toBeGreaterThan(1024);
  expect(resident()).toBeLessThan(before);
  expect(JSON.parse(JSON.stringify({ still: [1, "here"] }))).toEqual({ still: [1, "here"] });
});
