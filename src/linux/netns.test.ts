import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mountPointsBelow } from "./mountinfo.ts";
import {
  bindNetworkNamespaceOf,
  createNetworkNamespace,
  inNetworkNamespace,
  isNetworkNamespace,
  networkNamespacePath,
  removeNetworkNamespace,
  setInterfaceUp,
} from "./netns.ts";

const own = (): string => readlinkSync("/proc/thread-self/ns/net");
const interfaces = (): string[] =>
  [...readFileSync("/proc/thread-self/net/dev", "utf8").matchAll(/^\s*(\S+):/gm)].map(
    (match) => match[1] ?? "",
  );
const loopbackRoutes = (): number =>
  readFileSync("/proc/thread-self/net/fib_trie", "utf8").split("127.0.0.1").length - 1;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-netns-"));
});
afterEach(() => {
  for (const name of readdirSync(folder)) removeNetworkNamespace(join(folder, name));
  expect(mountPointsBelow(folder)).toEqual([]);
  rmSync(folder, { recursive: true });
});

test("a namespace is made at a path, entered for one synchronous turn, and gone when removed", () => {
  const before = own();
  const path = networkNamespacePath(folder);
  expect(path).toMatch(/\/cni-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
  createNetworkNamespace(path);
  expect(own()).toBe(before);
  expect(isNetworkNamespace(path)).toBe(true);
  const inside = inNetworkNamespace(path, own);
  expect(inside).not.toBe(before);
  expect(inNetworkNamespace(path, own)).toBe(inside);
  expect(own()).toBe(before);
  removeNetworkNamespace(path);
  expect(existsSync(path)).toBe(false);
  removeNetworkNamespace(path);
});

test("loopback is down in a new namespace, and has its address once it is up", () => {
  const path = join(folder, "deep", "ns");
  createNetworkNamespace(path);
  try {
    expect(inNetworkNamespace(path, interfaces)).toContain("lo");
    expect(inNetworkNamespace(path, loopbackRoutes)).toBe(0);
    inNetworkNamespace(path, () => setInterfaceUp("lo"));
    expect(inNetworkNamespace(path, loopbackRoutes)).toBeGreaterThan(0);
    expect(() => inNetworkNamespace(path, () => setInterfaceUp("nic9"))).toThrow(
      /ioctl nic9: no such device/,
    );
  } finally {
    removeNetworkNamespace(path);
    rmSync(join(folder, "deep"), { recursive: true });
  }
});

test("a function that throws or answers a promise leaves the thread where it was", () => {
  const before = own();
  const path = join(folder, "ns");
  createNetworkNamespace(path);
  const broken = (): never => {
    throw new Error("broken");
  };
  expect(() => inNetworkNamespace(path, broken)).toThrow("broken");
  expect(own()).toBe(before);
  expect(() => inNetworkNamespace(path, () => Promise.resolve(1))).toThrow(TypeError);
  expect(own()).toBe(before);
});

test("a process's namespace is pinned", () => {
  const path = join(folder, "ns");
  bindNetworkNamespaceOf(process.pid, path);
  expect(inNetworkNamespace(path, own)).toBe(own());
  removeNetworkNamespace(path);
  expect(() => bindNetworkNamespaceOf(2 ** 22 + 1, path)).toThrow(/ENOENT|no such file/);
  expect(existsSync(path)).toBe(false);
});

test("what is no network namespace is told apart", () => {
  const path = join(folder, "file");
  writeFileSync(path, "");
  expect(isNetworkNamespace(path)).toBe(false);
  expect(isNetworkNamespace(join(folder, "absent"))).toBe(false);
  expect(isNetworkNamespace("/proc/self/ns/mnt")).toBe(false);
  expect(isNetworkNamespace("/proc/self/ns/net")).toBe(true);
  expect(() => inNetworkNamespace(path, own)).toThrow(/setns .*: invalid argument/);
  expect(() => createNetworkNamespace(path)).toThrow(/EEXIST/);
  removeNetworkNamespace(path);
  expect(existsSync(path)).toBe(false);
});
