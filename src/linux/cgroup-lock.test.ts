import { expect, test } from "bun:test";
import { CGROUP_FILES, type CgroupFiles, CgroupLock, ownGroupFolder } from "./cgroup-lock.ts";

const mount = (root: string, point: string, type: string, options: string): string =>
  `31 23 0:28 ${root} ${point} rw,relatime - ${type} ${type} ${options}`;
const ROOT = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw";
const CPU = mount("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct");
const SYSTEMD = mount("/", "/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd");
const UNIFIED = mount("/", "/sys/fs/cgroup/un\\040ified", "cgroup2", "rw,nsdelegate");
const OWN = "4:cpu,cpuacct:/a\n1:name=systemd:/b/c\n0::/d";

test.each([
  ["version 2, alone or beside others", [CPU, UNIFIED], OWN, "/sys/fs/cgroup/un ified/d"],
  ["a named hierarchy", [ROOT, CPU, SYSTEMD], OWN, "/sys/fs/cgroup/systemd/b/c"],
  ["several controllers", [CPU], OWN, "/sys/fs/cgroup/cpu,cpuacct/a"],
  ["a mount of a part", [mount("/b", "/x", "cgroup", "rw,name=systemd")], OWN, "/x/c"],
  ["a mount of another part", [mount("/bb", "/x", "cgroup", "rw,name=systemd")], OWN, undefined],
  ["no mount of its hierarchies", [ROOT, mount("/", "/x", "cgroup", "rw,memory")], OWN, undefined],
  ["no control groups", [ROOT], "", undefined],
])("the group's folder with %s", (_name, mounts, own, folder) => {
  expect(ownGroupFolder(own, mounts.join("\n"))).toBe(folder);
});

/** Files that count what is written; the promise is of as many writes as asked for. */
function counting(write: CgroupFiles["write"]) {
  const writes: string[] = [];
  const waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  const files: CgroupFiles = {
    ...CGROUP_FILES,
    own: async () => OWN,
    ownNow: () => OWN,
    mountinfo: () => UNIFIED,
    write: async (path, text) => {
      writes.push(`${path} ${text}`);
      for (const { count, resolve } of waiting) if (writes.length >= count) resolve();
      await write(path, text);
    },
  };
  const reached = (count: number) => new Promise<void>((resolve) => void waiting.push({ count, resolve }));
  return { files, writes, reached };
}

test("it is taken at once, again while any start wants it, and not after", async () => {
  const { files, writes, reached } = counting(async () => undefined);
  const lock = new CgroupLock(files, 60_000);
  const [one, two] = [lock.warm(), lock.warm()];
  expect(writes).toEqual(["/sys/fs/cgroup/un ified/d/cgroup.procs 0"]);
  await reached(3);
  one();
  one();
  expect(lock.isWanted).toBe(true);
  await reached(5);
  two();
  expect(lock.isWanted).toBe(false);
  const last = writes.length;
  await Bun.sleep(30);
  expect(writes).toHaveLength(last);
  lock.warm()();
  expect(writes).toHaveLength(last + 1);
});

test("while many starts want it they are left to take it themselves", async () => {
  const { files, writes, reached } = counting(async () => undefined);
  const lock = new CgroupLock(files, 60_000);
  const starts = Array.from({ length: 20 }, () => lock.warm());
  await Bun.sleep(30);
  expect(writes).toHaveLength(1);
  for (const cool of starts.slice(1)) cool();
  await reached(3);
  starts[0]?.();
});

test("it is taken where this process has been moved to", async () => {
  const { files, writes, reached } = counting(async () => undefined);
  const lock = new CgroupLock({ ...files, own: async () => (writes.length < 2 ? OWN : "0::/e") }, 60_000);
  const cool = lock.warm();
  await reached(3);
  cool();
  expect(writes.slice(1)).toEqual([
    "/sys/fs/cgroup/un ified/d/cgroup.procs 0",
    "/sys/fs/cgroup/un ified/e/cgroup.procs 0",
  ]);
});

test("a start that hangs does not keep it for ever", async () => {
  const { files, writes } = counting(async () => undefined);
  const lock = new CgroupLock(files, 20);
  lock.warm();
  while (lock.isWanted) await Bun.sleep(1);
  const last = writes.length;
  expect(last).toBeGreaterThan(1);
  await Bun.sleep(30);
  expect(writes).toHaveLength(last);
});

test.each([
  ["may not be written", { write: () => Promise.reject(new Error("EACCES")) }],
  ["cannot be told", { mountinfo: () => ROOT }],
])("where the group %s it is left alone", async (_name, given) => {
  const { files, writes } = counting(async () => undefined);
  const lock = new CgroupLock({ ...files, ...given }, 60_000);
  lock.warm();
  while (lock.works) await Bun.sleep(1);
  expect(lock.isWanted).toBe(false);
  lock.warm();
  expect(lock.isWanted).toBe(false);
  expect(writes).toEqual([]);
});

test("the kernel lets this process move where it is, or says that it may not", async () => {
  const written: unknown[] = [];
  const write: CgroupFiles["write"] = async (path, text) => {
    await CGROUP_FILES.write(path, text);
    written.push(path);
  };
  const lock = new CgroupLock({ ...CGROUP_FILES, write });
  const before = CGROUP_FILES.ownNow();
  const cool = lock.warm();
  while (lock.works && written.length < 2) await Bun.sleep(1);
  cool();
  expect(lock.works).toBe(process.getuid?.() === 0);
  expect(CGROUP_FILES.ownNow()).toBe(before);
});
