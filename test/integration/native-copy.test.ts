/** What a native snapshot's copy of its parent keeps. Devices and capabilities want root. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { silentLogger } from "../../src/lib/log.ts";
import { makeNode, setTimes } from "../../src/linux/inode.ts";
import { getXattr, setXattr } from "../../src/linux/xattr.ts";
import { copyTree } from "../../src/snapshots/copy-tree.ts";
import { childPath, diskUsage } from "../../src/snapshots/disk-usage.ts";
import { treeOf } from "../support/mounts.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

let folder: string;
let source: string;
let target: string;

beforeEach(() => {
  folder = temporaryFolder();
  [source, target] = [join(folder, "source"), join(folder, "target")];
  for (const each of [source, target]) mkdirSync(each);
});
afterEach(() => removeFolder(folder));

const copy = (): Promise<void> => copyTree(source, target, { logger: silentLogger });
const at = (name: string): string => join(source, name);

test("kinds, owners, modes, times, attributes and links", async () => {
  mkdirSync(at("folder"));
  writeFileSync(at("folder/file"), "content");
  writeFileSync(at("set-id"), "x");
  chownSync(at("set-id"), 12, 34);
  chmodSync(at("set-id"), 0o6755);
  chownSync(at("folder"), 100_000, 100_001);
  chmodSync(at("folder"), 0o1777);
  linkSync(at("folder/file"), at("hard"));
  symlinkSync("../../etc/passwd", at("link"));
  lchownSync(at("link"), 5, 6);
  symlinkSync("nowhere", at("dangling"));
  makeNode(at("null"), 0o020666, 259n);
  makeNode(at("block"), 0o060600, 1793n);
  makeNode(at("fifo"), 0o010640, 0n);
  const socket = createServer().listen(at("socket"));
  await new Promise((listening) => socket.once("listening", listening));
  makeNode(at("whiteout"), 0o020000, 0n);
  setXattr(at("folder/file"), "user.colour", Buffer.from("red"));
  setXattr(at("folder"), "user.empty", new Uint8Array());
  const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");
  setXattr(at("set-id"), "security.capability", capability);
  setXattr(at("folder"), "trusted.overlay.opaque", Buffer.from("y"));
  for (const name of ["folder/file", "set-id", "link", "dangling", "null", "fifo", "folder", ""]) {
    setTimes(at(name), 1_111_111_111_123_456_789n, name === "link" ? -1n : 1_234_567_890_987_654_321n);
  }
  await copy();
  expect(treeOf(target)).toEqual(treeOf(source));
  expect(getXattr(join(target, "set-id"), "security.capability")).toEqual(new Uint8Array(capability));
  expect(getXattr(join(target, "folder/file"), "user.colour")).toEqual(new Uint8Array(Buffer.from("red")));
  expect(statSync(join(target, "hard")).ino).toBe(statSync(join(target, "folder/file")).ino);
  expect(statSync(join(target, "hard")).ino).not.toBe(statSync(at("hard")).ino);
  socket.close();
});

test("holes stay holes, what lies between them is copied", async () => {
  const size = 64 << 20;
  const fd = openSync(at("sparse"), "w");
  for (const offset of [0, 10 << 20, (40 << 20) + 123]) writeSync(fd, "data", offset);
  truncateSync(at("sparse"), size);
  writeFileSync(at("hole"), "");
  truncateSync(at("hole"), size);
  writeFileSync(at("empty"), "");
  writeFileSync(at("large"), Buffer.alloc((20 << 20) + 1, "abc"));
  await copy();
  for (const name of ["sparse", "hole", "empty", "large"]) {
    expect(readFileSync(join(target, name)).equals(readFileSync(at(name))), name).toBe(true);
  }
  expect(statSync(join(target, "sparse")).blocks).toBeLessThan(1000);
  expect(statSync(join(target, "hole")).blocks).toBeLessThan(100);
});

test("names are bytes", async () => {
  const names = [
    Buffer.from([0x61, 0xff, 0xfe]),
    Buffer.from("new\nline"),
    Buffer.from("ü"),
    Buffer.from(" "),
  ];
  for (const name of names) writeFileSync(childPath(Buffer.from(source), name), name);
  const inner = childPath(Buffer.from(source), Buffer.from([0xc0]));
  mkdirSync(inner);
  writeFileSync(childPath(inner, Buffer.from([0x80])), "x");
  await copy();
  const sorted = (path: string): string[] =>
    readdirSync(path, { encoding: "buffer" })
      .map((name) => name.toString("hex"))
      .sort();
  expect(sorted(target)).toEqual(sorted(source));
  expect(await diskUsage(target)).toEqual(await diskUsage(source));
  expect((await diskUsage(source)).inodes).toBe(7n);
});

test("a link in the source is never followed", async () => {
  mkdirSync(join(folder, "outside"));
  writeFileSync(join(folder, "outside/secret"), "s");
  symlinkSync(join(folder, "outside"), at("escape"));
  await copy();
  expect(treeOf(target)["escape"]?.content).toBe(join(folder, "outside"));
  expect(Object.keys(treeOf(target))).toEqual(["", "escape"]);
});

test("it stops when its caller is gone", async () => {
  for (let n = 0; n < 200; n++) writeFileSync(at(`f${n}`), "x");
  const signal = AbortSignal.abort(new Error("gone"));
  await expect(copyTree(source, target, { logger: silentLogger, signal })).rejects.toThrow("gone");
});
