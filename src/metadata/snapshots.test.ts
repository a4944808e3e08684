import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Info, InfoSchema, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { recordingPublisher } from "../../test/support/metadata.ts";
import { Db } from "../bolt/db.ts";
import { systemClock } from "../lib/clock.ts";
import { armFailpoint, systemError } from "../lib/failpoint.ts";
import { silentLogger } from "../lib/log.ts";
import { fail, isError } from "../model/errors.ts";
import type { SnapshotStore, Snapshotter } from "../model/snapshots.ts";
import { openNative } from "../snapshots/native.ts";
import { Changes } from "./changes.ts";
import { openSnapshots } from "./snapshots.ts";

let folder: string;
let db: Db;
let backend: Snapshotter;
let store: SnapshotStore;
let publisher: ReturnType<typeof recordingPublisher>;
const scope = { namespace: "unit" };
const clock = systemClock();
const logger = silentLogger;
const changes = new Changes();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-snapshots-"));
  db = Db.open(join(folder, "meta.db"));
  backend = openNative({ root: join(folder, "native"), clock, logger });
  publisher = recordingPublisher();
  store = openSnapshots({ db, name: "native", snapshotter: backend, publisher, clock, logger, changes });
});
afterEach(async () => {
  await store.close();
  await backend.close();
  await db.close();
  rmSync(folder, { recursive: true });
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return isError(error) ? `${error.code}: ${error.message}` : String(error);
  }
  return "fine";
}

async function listed(of: SnapshotStore = store): Promise<Info[]> {
  const infos: Info[] = [];
  for await (const block of of.list(scope)) infos.push(...block);
  return infos;
}

async function backendNames(): Promise<string[]> {
  const names: string[] = [];
  await backend.walk((info) => void names.push(info.name));
  return names;
}

test("events tell of prepare, commit and remove, not of views", async () => {
  await store.prepare(scope, "a", "");
  await store.commit(scope, "c", "a");
  await store.view(scope, "v", "c");
  await store.remove(scope, "v");
  await codeOf(store.commit(scope, "c", "a"));
  await codeOf(store.remove(scope, "missing"));
  const told = publisher.events.map(({ namespace, topic, event }) => {
    const { key, parent, name, snapshotter } = event as Record<string, string | undefined>;
    return [namespace, topic, key, parent ?? name, snapshotter];
  });
  expect(told).toEqual([
    ["unit", "/snapshot/prepare", "a", "", "native"],
    ["unit", "/snapshot/commit", "a", "c", "native"],
    ["unit", "/snapshot/remove", "v", undefined, "native"],
  ]);
});

test("what is removed is freed in the background, children before parents or not", async () => {
  await store.prepare(scope, "a", "");
  await store.commit(scope, "c", "a");
  await store.prepare(scope, "b", "c");
  expect(await backendNames()).toEqual(["unit/2/c", "unit/3/b"]);
  await store.remove(scope, "b");
  await store.remove(scope, "c");
  await store.collect();
  expect(await backendNames()).toEqual([]);
});

test("collect removes what no namespace names, and nothing else", async () => {
  await store.prepare(scope, "a", "");
  await store.commit(scope, "c", "a");
  await store.prepare({ namespace: "other" }, "x", "");
  await backend.prepare("stray", "unit/2/c");
  await backend.prepare("stray-a", "");
  await backend.commit("stray-1", "stray-a");
  await backend.prepare("stray-b", "stray-1");
  await store.collect();
  expect(await backendNames()).toEqual(["other/1/x", "unit/2/c"]);
});

test("a backend that has never had a snapshot may answer that there is nothing", async () => {
  const walk = spyOn(backend, "walk").mockRejectedValueOnce(fail("NotFound", "bucket does not exist"));
  await store.collect();
  expect(walk).toHaveBeenCalledTimes(1);
});

test("a snapshot without a parent is given one when it is committed", async () => {
  await store.prepare(scope, "a", "");
  await store.commit(scope, "base", "a");
  await store.prepare(scope, "b", "");
  expect(await codeOf(store.commit(scope, "top", "b", { parent: "missing" }))).toBe(
    "NotFound: parent snapshot missing does not exist: not found",
  );
  await store.commit(scope, "top", "b", { parent: "base" });
  expect(await store.stat(scope, "top")).toMatchObject({ kind: Kind.COMMITTED, parent: "base" });
  expect(await codeOf(store.remove(scope, "base"))).toContain("cannot remove snapshot with child");
  // Another one than it has is passed over (containerd `core/metadata/snapshot.go` Commit).
  await store.prepare(scope, "c", "base");
  await store.commit(scope, "kept", "c", { parent: "top" });
  expect(await store.stat(scope, "kept")).toMatchObject({ kind: Kind.COMMITTED, parent: "base" });
});

test("of many with one key one succeeds, and nothing is left of the others", async () => {
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => codeOf(store.prepare(scope, "k", ""))));
  expect(outcomes.filter((code) => code === "fine")).toHaveLength(1);
  expect(outcomes.filter((code) => code === 'AlreadyExists: snapshot "k": already exists')).toHaveLength(9);
  await Promise.all(["x", "y", "z"].map((key) => store.prepare(scope, key, "")));
  const commits = await Promise.all(["x", "y", "z"].map((key) => codeOf(store.commit(scope, "one", key))));
  expect(commits.filter((code) => code === "fine")).toHaveLength(1);
  expect((await listed()).map(({ name }) => name)).toHaveLength(4);
  expect(await backendNames()).toHaveLength(4);
});

test("a list of hundreds comes in blocks, ordered, without those that are gone in the snapshotter", async () => {
  await Promise.all(Array.from({ length: 250 }, (_, n) => store.prepare(scope, `k${1000 + n}`, "")));
  const blocks: number[] = [];
  for await (const block of store.list(scope)) blocks.push(block.length);
  expect(blocks).toEqual([100, 100, 50]);
  const names = (await listed()).map(({ name }) => name);
  expect(names).toEqual([...names].sort());
  const [gone] = await backendNames();
  await backend.remove(gone ?? "");
  expect(await listed()).toHaveLength(249);
});

describe("when the database fails", () => {
  test("after the snapshotter prepared: the snapshot is not there, and the next one is", async () => {
    const disarm = armFailpoint("bolt.beforeMeta", failAt(2));
    expect(await codeOf(store.prepare(scope, "k", ""))).not.toBe("fine");
    disarm();
    expect(await listed()).toEqual([]);
    expect(await backendNames()).toEqual([]);
    await store.prepare(scope, "k", "");
  });

  test("after the snapshotter committed: the commit is taken back", async () => {
    await store.prepare(scope, "a", "", { "containerd.io/snapshot/l": "1", own: "2" });
    const before = await store.stat(scope, "a");
    const disarm = armFailpoint("bolt.beforeMeta", failAt(2));
    expect(await codeOf(store.commit(scope, "c", "a"))).not.toBe("fine");
    disarm();
    expect(await listed()).toEqual([before]);
    expect(await backendNames()).toEqual(["unit/1/a"]);
    expect((await store.mounts(scope, "a")).length).toBe(1);
    await store.commit(scope, "c", "a");
    expect((await store.stat(scope, "c")).kind).toBe(Kind.COMMITTED);
  });
});

/** Fails at the visit of that number alone. */
function failAt(visit: number): () => void {
  let visits = 0;
  return () => {
    if (++visits === visit) throw systemError("ENOSPC");
  };
}

/** A snapshotter that finds a layer by itself: its prepare commits the target and says that it exists. */
function remote(found: Partial<Info>): Snapshotter {
  return {
    ...(Object.fromEntries(
      ["stat", "update", "usage", "mounts", "view", "commit", "remove", "walk", "cleanup", "close"].map(
        (name) => [name, (...args: unknown[]) => Reflect.apply(Reflect.get(backend, name), backend, args)],
      ),
    ) as unknown as Snapshotter),
    async prepare(key, parent, labels) {
      if (labels?.["containerd.io/snapshot.ref"] === undefined) return backend.prepare(key, parent, labels);
      const info = create(InfoSchema, {
        name: "remote",
        parent,
        kind: Kind.COMMITTED,
        labels: { ...labels },
        ...found,
      });
      await backend.prepare("r-a", info.parent, info.labels);
      await backend.commit(info.name, "r-a", { labels: info.labels });
      throw fail("AlreadyExists", "target snapshot");
    },
  };
}

describe("a snapshotter that has the layer", () => {
  const labels = { "containerd.io/snapshot.ref": "sha256:chain" };

  test("names it by the target", async () => {
    const snapshotter = remote({});
    const remotely = openSnapshots({ db, name: "remote", snapshotter, publisher, clock, logger, changes });
    const prepared = codeOf(remotely.prepare(scope, "extract", "", { ...labels, own: "1" }));
    expect(await prepared).toBe(
      'AlreadyExists: target snapshot "sha256:chain" from snapshotter: already exists',
    );
    expect(await listed(remotely)).toMatchObject([{ name: "sha256:chain", labels: { ...labels, own: "1" } }]);
    expect(await codeOf(remotely.prepare(scope, "again", "", labels))).toBe(
      'AlreadyExists: target snapshot "sha256:chain": already exists',
    );
  });

  test("but not the one that was meant", async () => {
    const snapshotter = remote({ labels: { "containerd.io/snapshot.ref": "another" } });
    const remotely = openSnapshots({ db, name: "remote", snapshotter, publisher, clock, logger, changes });
    expect(await codeOf(remotely.prepare(scope, "extract", "", labels))).toBe(
      'NotFound: target snapshot "sha256:chain" in backend: not found',
    );
  });
});
