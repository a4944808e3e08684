import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ifThere } from "../lib/if-there.ts";
import { silentLogger } from "../lib/log.ts";
import { ConfigFolder } from "./config-folder.ts";

/** How soon a change must show: the kubelet's node is not ready meanwhile. */
const WITHIN_MS = 1000;

let root: string;
let folder: ConfigFolder | undefined;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "bunkerd-cni-"));
});
afterEach(() => {
  folder?.close();
  folder = undefined;
  rmSync(root, { recursive: true });
});

const path = (...parts: string[]): string => join(root, "etc", "cni", "net.d", ...parts);
const config = (name: string): string =>
  JSON.stringify({ cniVersion: "1.0.0", name, plugins: [{ type: "bridge" }] });
const open = (maxFiles = 1): ConfigFolder => {
  folder = new ConfigFolder({ path: path(), maxFiles }, { logger: silentLogger });
  return folder;
};
const names = (): string[] => folder?.networks.map(({ name }) => name) ?? [];

async function shows(...expected: string[]): Promise<void> {
  const deadline = performance.now() + WITHIN_MS;
  while (names().join() !== expected.join()) {
    if (performance.now() > deadline)
      throw new Error(`${JSON.stringify(names())} instead of ${JSON.stringify(expected)}`);
    await Bun.sleep(5);
  }
}

test("the first files by name are read, as many as are wanted", () => {
  mkdirSync(path(), { recursive: true });
  for (const name of ["b", "a", "c"]) writeFileSync(path(`${name}.conflist`), config(name));
  open();
  expect(names()).toEqual(["a"]);
  folder?.close();
  open(2);
  expect(names()).toEqual(["a", "b"]);
  folder?.close();
  open(0);
  expect(names()).toEqual(["a", "b", "c"]);
  expect(folder?.failure).toBeUndefined();
});

test("a folder that is not there, or has a bad file, says so", () => {
  open();
  expect(folder?.failure?.message).toBe(
    `cni config load failed: no network config found in ${path()}: cni plugin not initialized: failed to load cni config`,
  );
  folder?.close();
  mkdirSync(path(), { recursive: true });
  writeFileSync(path("10.conf"), "{}");
  open();
  expect(folder?.failure?.message).toMatch(
    /failed to load CNI config file .*10.conf: .*missing 'type': invalid cni config: failed/,
  );
  expect(names()).toEqual([]);
});

test("files that are written, renamed into place, changed and removed show", async () => {
  mkdirSync(path(), { recursive: true });
  open();
  writeFileSync(path("10.conflist"), config("one"));
  await shows("one");
  writeFileSync(path("10.conflist"), config("two"));
  await shows("two");
  writeFileSync(join(root, "new"), config("three"));
  renameSync(join(root, "new"), path("10.conflist"));
  await shows("three");
  rmSync(path("10.conflist"));
  await shows();
  writeFileSync(path("10.conflist"), config("four"));
  await shows("four");
});

test("a folder that is removed and made again, with those above it, is followed", async () => {
  open();
  for (const name of ["one", "two"]) {
    mkdirSync(path(), { recursive: true });
    writeFileSync(path("10.conflist"), config(name));
    await shows(name);
    rmSync(path(), { recursive: true });
    await shows();
    mkdirSync(path());
    writeFileSync(path("10.conflist"), config(`${name} again`.replace(" ", "-")));
    await shows(`${name}-again`);
    rmSync(join(root, "etc"), { recursive: true });
    await shows();
  }
  mkdirSync(join(root, "elsewhere"));
  writeFileSync(join(root, "elsewhere", "10.conflist"), config("moved"));
  mkdirSync(join(root, "etc", "cni"), { recursive: true });
  renameSync(join(root, "elsewhere"), path());
  await shows("moved");
});

test("one that is moved away with those above it, and another in its place", async () => {
  mkdirSync(path(), { recursive: true });
  writeFileSync(path("10.conflist"), config("one"));
  open();
  expect(names()).toEqual(["one"]);
  renameSync(join(root, "etc"), join(root, "old"));
  await shows();
  mkdirSync(path(), { recursive: true });
  await shows();
  writeFileSync(path("10.conflist"), config("two"));
  await shows("two");
  rmSync(join(root, "etc"), { recursive: true });
  renameSync(join(root, "old"), join(root, "etc"));
  await shows("one");
});

/** By inotify, of this process: proc_pid_fdinfo(5). */
function isWatched(watched: string): boolean {
  const inode = ` ino:${statSync(watched).ino.toString(16)} `;
  const infos = readdirSync("/proc/self/fdinfo").map((fd) =>
    ifThere(() => readFileSync(join("/proc/self/fdinfo", fd), "latin1")),
  );
  return infos.some((info) =>
    info?.split("\n").some((line) => line.startsWith("inotify ") && line.includes(inode)),
  );
}

test("while it is there, nothing wakes for what is done further above", async () => {
  open();
  expect(isWatched(root)).toBe(true);
  mkdirSync(path(), { recursive: true });
  writeFileSync(path("10.conflist"), config("one"));
  await shows("one");
  expect([path(), path(".."), path("..", ".."), root].map(isWatched)).toEqual([true, true, false, false]);
});
