import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { $ } from "bun";
import { temporaryFolder } from "../../test/support/processes.ts";
import { makeTopFolder, markTopFolder } from "./top-folder.ts";

const EXT4 = "ext2/ext3";

async function attributes(path: string): Promise<string> {
  const shown = await $`lsattr -d ${path}`.text();
  return shown.split(" ")[0] ?? "";
}

async function isExt4(path: string): Promise<boolean> {
  return (await $`stat -f -c %T ${path}`.text()).trim() === EXT4;
}

test("a folder that is made has the mark, and so has one that was there or was made again", async () => {
  const folder = temporaryFolder();
  const top = join(folder, "a", "top");
  const old = join(folder, "old");
  mkdirSync(old, { mode: 0o750 });
  for (const [path, mode] of [
    [top, 0o711],
    [top, 0o711],
    [old, 0o711],
  ] as const)
    makeTopFolder(path, mode);
  expect(statSync(top).mode & 0o777).toBe(0o711);
  expect(statSync(old).mode & 0o777).toBe(0o750);
  rmSync(top, { recursive: true });
  makeTopFolder(top, 0o711);
  const expected = (await isExt4(folder)) ? /T/ : /^-+/;
  for (const path of [top, old]) expect(await attributes(path)).toMatch(expected);
  expect(await attributes(join(folder, "a"))).not.toContain("T");
});

test("other attributes of a folder stay", async () => {
  const folder = temporaryFolder();
  if (!(await isExt4(folder))) return expect(markTopFolder(folder)).toBe(false);
  await $`chattr +d ${folder}`;
  expect(markTopFolder(folder)).toBe(true);
  expect(await attributes(folder)).toMatch(/d.*T/);
});

test("what is no folder, or of a file system without the mark, is left", () => {
  expect(markTopFolder("/proc")).toBe(false);
  expect(markTopFolder("/there/is/none")).toBe(false);
  const file = join(temporaryFolder(), "file");
  writeFileSync(file, "");
  chmodSync(file, 0o600);
  expect(() => makeTopFolder(file, 0o700)).toThrow("EEXIST");
});
