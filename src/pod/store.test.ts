import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { armFailpoint } from "../lib/failpoint.ts";
import type { Pod } from "./api/pod.ts";
import {
  claimPod,
  createPod,
  deletePod,
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

test("nothing that is written of a removed pod brings its folder back", () => {
  const pod = stored("gone");
  createPod(roots, pod);
  deletePod(roots, pod.pod.metadata);
  requestDeletion(roots, pod.pod.metadata, undefined);
  expect(() => savePod(roots, pod)).toThrow('pod "gone" in namespace "ns": its record is gone: not found');
  deletePod(roots, pod.pod.metadata);
  expect(names()).toEqual([]);
});
