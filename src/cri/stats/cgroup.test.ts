import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parentOf, parseCgroup, readCgroup, readProcesses } from "./cgroup.ts";

const folder = mkdtempSync(join(tmpdir(), "cgroup-"));
afterAll(() => rmSync(folder, { recursive: true }));

function files(root: string, content: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(content)) {
    const path = join(root, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

test("version 1: each controller has a folder of its own", () => {
  const root = join(folder, "v1");
  files(root, {
    "cpuacct/pod/c/cpuacct.usage": "1234567890\n",
    "memory/pod/c/memory.usage_in_bytes": "5000\n",
    "memory/pod/c/memory.limit_in_bytes": "10000\n",
    "memory/pod/c/memory.memsw.usage_in_bytes": "5600\n",
    "memory/pod/c/memory.memsw.limit_in_bytes": "12000\n",
    "memory/pod/c/memory.stat":
      "cache 1\ninactive_file 9\ntotal_inactive_file 1000\ntotal_rss 3000\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
    "pids/pod/c/pids.current": "3\n",
  });
  const text = "9:cpu,cpuacct:/pod/c\n4:memory:/pod/c\n3:pids:/pod/c\n0::/unified:with:colons\n";
  const cgroup = parseCgroup(text, root);
  expect(readProcesses(cgroup)).toBe(3);
  expect(readCgroup(cgroup)).toEqual({
    cpuNanoseconds: 1_234_567_890,
    cpuPressure: undefined,
    memory: {
      usageBytes: 5000,
      workingSetBytes: 4000,
      availableBytes: 6000,
      rssBytes: 3000,
      pageFaults: 7,
      majorPageFaults: 2,
    },
    memoryPressure: undefined,
    swap: { usageBytes: 600, availableBytes: 1400 },
    ioPressure: undefined,
  });
});

test("version 2: one folder, pressures, no limit", () => {
  const root = join(folder, "v2");
  const pressure =
    "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
  files(root, {
    "cgroup.controllers": "cpu memory pids\n",
    "pod/c/cpu.stat": "usage_usec 42\nuser_usec 40\n",
    "pod/c/cpu.pressure": pressure,
    "pod/c/memory.current": "5000\n",
    "pod/c/memory.max": "max\n",
    "pod/c/memory.stat": "anon 3000\ninactive_file 6000\npgfault 7\npgmajfault 2\n",
    "pod/c/memory.swap.current": "10\n",
    "pod/c/memory.swap.max": "30\n",
    "pod/c/pids.current": "3\n",
    "pod/cpu.stat": "usage_usec 50\n",
  });
  const cgroup = parseCgroup("0::/pod/c\n", root);
  const use = readCgroup(cgroup);
  expect(use?.cpuNanoseconds).toBe(42_000);
  expect(use?.cpuPressure).toEqual({
    Some: { Total: 12_000n, Avg10: 1.5, Avg60: 0.25, Avg300: 0 },
    Full: { Total: 3000n, Avg10: 0, Avg60: 0, Avg300: 0 },
  });
  expect(use?.memory).toMatchObject({ workingSetBytes: 0, availableBytes: 0, rssBytes: 3000 });
  expect(use?.swap).toEqual({ usageBytes: 10, availableBytes: 20 });
  expect(use?.ioPressure).toBeUndefined();
  expect(readCgroup(parentOf(cgroup))?.cpuNanoseconds).toBe(50_000);
});

test("a cgroup that has gone has no use", () => {
  expect(readCgroup(parseCgroup("4:memory:/gone\n3:cpuacct:/gone\n", join(folder, "v1")))).toBeUndefined();
});
