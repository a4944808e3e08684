import { afterEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "bun";
import { armFailpoint } from "../lib/failpoint.ts";
import type { Pod } from "./api/pod.ts";
import { keptEvents, readLive } from "./live.ts";
import { podPaths } from "./paths.ts";
import {
  claimPod,
  createPod,
  damagedRecords,
  deletePod,
  deletionRequest,
  removeLeftovers,
  requestDeletion,
  type StoredPod,
  savePod,
  storedPods,
} from "./store.ts";

const folder = mkdtempSync(join(tmpdir(), "bunkerd-store-"));
const roots = { pods: join(folder, "pods"), logs: join(folder, "logs") };
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function stored(name: string): StoredPod {
  const pod = { metadata: { name, namespace: "ns", uid: `uid-${name}`, labels: {}, annotations: {} } } as Pod;
  return { pod, configMaps: [], secrets: [], source: "", acceptedMs: 0 };
}

const attributes = async (path: string): Promise<string> =>
  (await $`lsattr -d ${path}`.text()).split(" ")[0] ?? "";
const names = (): string[] => readdirSync(roots.pods).filter((name) => name !== ".locks");
const uids = (): string[] => storedPods(roots).map(({ pod }) => pod.metadata.uid);

function cutOffAt(point: string, act: () => void): void {
  const disarm = armFailpoint(point, () => {
    throw new Error("cut off");
  });
  expect(act).toThrow("cut off");
  disarm();
}

test("a pod whose folder was being made or removed is none, and its folder goes with the next sweep", () => {
  createPod(roots, stored("kept"));
  createPod(roots, stored("removed"));
  cutOffAt("pod.beforeRecord", () => createPod(roots, stored("made")));
  cutOffAt("pod.beforeRemoval", () => deletePod(roots, stored("removed").pod.metadata));
  expect(uids()).toEqual(["uid-kept"]);
  expect(names()).toHaveLength(3);
  const claim = claimPod(roots, "ns", "made");
  removeLeftovers(roots);
  expect(names().sort()).toEqual([".new-ns_made", "uid-kept"]);
  claim?.release();
  removeLeftovers(roots);
  expect(names()).toEqual(["uid-kept"]);
});

test("a record that is damaged is told of, and the others are read; events and states of which nothing is left are none", () => {
  createPod(roots, stored("kept"));
  createPod(roots, stored("damaged"));
  const paths = podPaths(roots, stored("damaged").pod.metadata);
  for (const path of [paths.record, join(paths.folder, "state.json")]) writeFileSync(path, "");
  const event = JSON.stringify({ reason: "Started" });
  writeFileSync(join(paths.folder, "events.jsonl"), `${event}\n{"reas\n${event}\n`);
  expect(uids()).toEqual(["uid-kept"]);
  expect(damagedRecords(roots).map(({ message }) => message)).toEqual([
    expect.stringContaining(`pod record ${paths.record}: `),
  ]);
  expect(readLive(paths).waiting).toEqual({});
  expect(keptEvents(paths).map(({ reason }) => reason)).toEqual(["Started", "Started"]);
});

test("a mark that found no room for its grace is one all the same", () => {
  const { metadata } = stored("marked").pod;
  createPod(roots, stored("marked"));
  expect(deletionRequest(roots, metadata)).toBeUndefined();
  writeFileSync(podPaths(roots, metadata).deletion, "");
  expect(deletionRequest(roots, metadata)).toEqual({});
});

test("nothing that is written of a removed pod brings its folder back", () => {
  const pod = stored("gone");
  createPod(roots, pod);
  deletePod(roots, pod.pod.metadata);
  requestDeletion(roots, pod.pod.metadata, undefined);
  expect(() => savePod(roots, pod)).toThrow('pod "gone" in namespace "ns": its record is gone: not found');
  deletePod(roots, pod.pod.metadata);
  expect(names()).toEqual([]);
});

test("roots of pods and logs that are made are spread over the disk; one that was there stays as it is", async () => {
  const isExt4 = (await $`stat -f -c %T ${tmpdir()}`.text()).trim() === "ext2/ext3";
  mkdirSync(roots.logs, { recursive: true });
  claimPod(roots, "ns", "first")?.release();
  if (isExt4) expect(await attributes(roots.pods)).toContain("T");
  expect(await $`lsattr -d ${roots.logs}`.nothrow().text()).not.toMatch(/^\S*T/);
  rmSync(roots.logs, { recursive: true });
  claimPod(roots, "ns", "first")?.release();
  if (isExt4) expect(await attributes(roots.logs)).toContain("T");
});
