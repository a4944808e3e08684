import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ImageSchema } from "#gen/containerd/services/images/v1/images_pb.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { systemClock } from "../lib/clock.ts";
import { armFailpoint } from "../lib/failpoint.ts";
import { silentLogger } from "../lib/log.ts";
import { formatRfc3339 } from "../lib/rfc3339.ts";
import type { CollectedObject } from "../model/collection.ts";
import type { Labels } from "../model/labels.ts";
import type { Snapshotter } from "../model/snapshots.ts";
import { openNative } from "../snapshots/native.ts";

const scope = { namespace: "unit" };
const SECOND = 1_000_000_000n;
let now: bigint;
let metadata: TestMetadata;
let backend: Snapshotter;
let folder: string;
let streams: Map<string, { namespace: string; lease: string | undefined }>;

beforeEach(async () => {
  now = 1_700_000_000_000_000_000n;
  streams = new Map();
  folder = mkdtempSync(join(tmpdir(), "bunkerd-gc-"));
  backend = openNative({ root: folder, clock: systemClock(), logger: silentLogger });
  const collectible = {
    all: () => Array.from(streams, ([id, { namespace }]) => ({ id, namespace })),
    active: (of: string) => idsOf(({ namespace, lease }) => namespace === of && lease === undefined),
    leased: (of: string, id: string) => idsOf(({ namespace, lease }) => namespace === of && lease === id),
    remove: (_namespace: string, id: string) => void streams.delete(id),
  };
  metadata = await temporaryMetadata({
    clock: { now: () => ++now },
    snapshotters: new Map([["native", backend]]),
  });
  metadata.collector.register("stream", collectible);
});
afterEach(async () => {
  await metadata.snapshots.get("native")?.close();
  await backend.close();
  await metadata.close();
  rmSync(folder, { recursive: true });
});

function idsOf(match: (stream: { namespace: string; lease: string | undefined }) => boolean): string[] {
  return [...streams].filter(([, stream]) => match(stream)).map(([id]) => id);
}

const digestOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;

async function blob(text: string, labels: Labels = {}, lease?: string): Promise<string> {
  const writer = await metadata.content.writer({ ...scope, lease }, { ref: `ref-${text}` });
  await writer.write(new TextEncoder().encode(text));
  await writer.commit({ labels });
  return digestOf(text);
}

const ref = (...digests: string[]): Labels =>
  Object.fromEntries(digests.map((digest, index) => [`containerd.io/gc.ref.content.${index}`, digest]));

async function image(name: string, digest: string, labels: Labels = {}): Promise<void> {
  const target = { digest, mediaType: "x", size: 1n };
  await metadata.images.create(scope, create(ImageSchema, { name, target, labels }));
}

async function snapshot(key: string, parent = "", labels: Labels = {}): Promise<void> {
  await store().prepare(scope, `${key} active`, parent);
  await store().commit(scope, key, `${key} active`, { labels });
}

function store() {
  const found = metadata.snapshots.get("native");
  if (found === undefined) throw new Error("no snapshotter");
  return found;
}

const inspected = (objects: readonly CollectedObject[]): string[] =>
  objects.map(({ kind, key }) => `${kind} ${key}`).sort();

async function collected(): Promise<string[]> {
  const planned = inspected(await metadata.collector.plan());
  const removed = inspected((await metadata.collector.collect()).removed);
  expect(planned).toEqual(removed);
  expect(inspected((await metadata.collector.collect()).removed)).toEqual([]);
  return removed;
}

const blobFile = (digest: string): string => join(metadata.contentRoot, "blobs", ...digest.split(":"));

describe("what is kept", () => {
  test("an image's tree, by its labels; the rest goes, files and events with it", async () => {
    const layer = await blob("layer");
    const config = await blob("config", { "containerd.io/gc.ref.snapshot.native": "top" });
    const manifest = await blob("manifest", ref(layer, config));
    const stray = await blob("stray", ref(layer));
    await snapshot("base");
    await snapshot("top", "base");
    await snapshot("other", "base");
    await image("i", manifest);
    expect(await collected()).toEqual([`content ${stray}`, "snapshot native/other"]);
    expect([existsSync(blobFile(stray)), existsSync(blobFile(layer))]).toEqual([false, true]);
    const names: string[] = [];
    await backend.walk(({ name }) => void names.push(name.replace(/^unit\/\d+\//, "")));
    expect(names).toEqual(["base", "top"]);
    expect(metadata.events.at(-1)).toMatchObject({ topic: "/snapshot/remove", event: { key: "other" } });
    // The parent has lost its child, so that it can be removed once nothing refers to it.
    await metadata.images.delete(scope, "i");
    expect(await collected()).toEqual(
      [
        `content ${config}`,
        `content ${layer}`,
        `content ${manifest}`,
        "snapshot native/base",
        "snapshot native/top",
      ].sort(),
    );
  });

  test("roots: gc.root on content and snapshots, containers, sandboxes' references", async () => {
    const root = await blob("root", { "containerd.io/gc.root": "x" });
    const named = await blob("named", { "containerd.io/gc.rootish": "x" });
    const bySandbox = await blob("by sandbox");
    const stray = await blob("stray", {
      "containerd.io/gc.refX": root,
      "containerd.io/gc.ref.contentX": root,
    });
    await snapshot("rooted", "", { "containerd.io/gc.root": "x" });
    await snapshot("of container");
    await metadata.containers.create(scope, {
      ...(await import("../../test/support/container-store-suite.ts")).containerOf("c"),
      snapshotter: "native",
      snapshotKey: "of container",
    });
    await metadata.sandboxes.create(scope, {
      $typeName: "containerd.types.Sandbox",
      sandboxId: "s",
      runtime: { $typeName: "containerd.types.Sandbox.Runtime", name: "r" },
      labels: ref(bySandbox),
      extensions: {},
      sandboxer: "",
    });
    expect(await collected()).toEqual([`content ${stray}`]);
    expect(await metadata.content.info(scope, named)).toMatchObject({ digest: named });
  });

  test("a lease keeps what it names with all that refers to; a flat one only that; an expired one nothing", async () => {
    const leaf = await blob("leaf");
    const tree = await blob("tree", ref(leaf));
    await snapshot("base");
    await snapshot("top", "base", ref(leaf));
    const labels = { "containerd.io/gc.expire": formatRfc3339(now + 3600n * SECOND) };
    const lease = async (id: string, more: Labels = {}) => {
      await metadata.leases.create(scope, { id, labels: { ...labels, ...more } });
      for (const [type, key] of [
        ["content", tree],
        ["snapshots/native", "top"],
      ] as const)
        await metadata.leases.addResource(scope, id, {
          $typeName: "containerd.services.leases.v1.Resource",
          id: key,
          type,
        });
    };
    await lease("whole");
    expect(await collected()).toEqual([]);
    await metadata.leases.delete(scope, "whole");
    await lease("flat", { "containerd.io/gc.flat": "x" });
    expect(await collected()).toEqual([`content ${leaf}`]);
    now += 3601n * SECOND;
    expect(await collected()).toEqual([
      `content ${tree}`,
      "lease flat",
      "snapshot native/base",
      "snapshot native/top",
    ]);
  });

  test("back references, images that expire, references to images", async () => {
    const target = await blob("target");
    const follower = await blob("follower", {
      "containerd.io/gc.bref.image.x": "i",
      "containerd.io/gc.bref.content": target,
    });
    const referred = await blob("referred");
    await blob("holder", { "containerd.io/gc.root": "x", "containerd.io/gc.ref.image": "j" });
    const expire = { "containerd.io/gc.expire": formatRfc3339(now + 10n * SECOND) };
    await image("i", target, expire);
    await image("j", referred, { "containerd.io/gc.expire": formatRfc3339(now - SECOND) });
    expect(await collected()).toEqual([]);
    now += 11n * SECOND;
    expect(await collected()).toEqual([`content ${follower}`, `content ${target}`, "image i"].sort());
    expect(metadata.events.at(-1)).toMatchObject({ topic: "/images/delete", event: { name: "i" } });
  });

  test("conditions on when a snapshot was used", async () => {
    const used = { "containerd.io/gc.cond.value-usedat": formatRfc3339(now - 60n * SECOND) };
    for (const key of ["young", "old", "unknown"]) await snapshot(key, "", key === "unknown" ? {} : used);
    const digest = await blob("b", {
      "containerd.io/gc.root": "x",
      "containerd.io/gc.cond.snapshot.native/a": "usedat<2m|young",
      "containerd.io/gc.cond.snapshot.native/b": "usedat<=2m,other=3,usedat>2m|old",
      "containerd.io/gc.cond.snapshot.native/c": "usedat<2m|unknown",
    });
    expect(await collected()).toEqual(["snapshot native/old", "snapshot native/unknown"]);
    expect(await metadata.content.info(scope, digest)).toMatchObject({ digest });
  });

  test("ingests: with time left, in a lease, being written; streams: active or leased", async () => {
    await metadata.leases.create(scope, { id: "l" });
    const writer = (name: string, lease?: string) =>
      metadata.content.writer({ ...scope, lease }, { ref: name });
    await (await writer("leased", "l")).close();
    await (await writer("free")).close();
    const open = await writer("open", "l");
    streams.set("active", { namespace: "unit", lease: undefined });
    streams.set("leased", { namespace: "unit", lease: "l" });
    expect(await collected()).toEqual([]);
    await metadata.leases.delete(scope, "l");
    expect(await collected()).toEqual(["ingest leased", "stream leased"]);
    expect([...streams.keys()]).toEqual(["active"]);
    now += 25n * 3600n * SECOND;
    expect(await collected()).toEqual(["ingest free"]);
    await open.close();
    expect(await collected()).toEqual(["ingest open"]);
  });
});

describe("beside writers", () => {
  /** Runs `change` between the mark and the removal. */
  async function during(change: () => Promise<unknown>): Promise<string[]> {
    let done: Promise<unknown> | undefined;
    const disarm = armFailpoint("gc.marked", () => {
      done = change();
    });
    try {
      const { removed } = await metadata.collector.collect();
      await done;
      return inspected(removed);
    } finally {
      disarm();
    }
  }

  test("what gets a reference after the mark stays, with all that it refers to", async () => {
    const leaf = await blob("leaf");
    const tree = await blob("tree", ref(leaf));
    const stray = await blob("stray");
    expect(await during(() => image("i", tree))).toEqual([`content ${stray}`]);
    await metadata.images.delete(scope, "i");
    const resource = {
      $typeName: "containerd.services.leases.v1.Resource",
      id: tree,
      type: "content",
    } as const;
    await metadata.leases.create(scope, { id: "l" });
    expect(await during(() => metadata.leases.addResource(scope, "l", resource))).toEqual([]);
    await metadata.leases.delete(scope, "l");
    const info = await metadata.content.info(scope, leaf);
    const labels = { "containerd.io/gc.root": "x" };
    expect(await during(() => metadata.content.update(scope, { ...info, labels }))).toEqual([
      `content ${tree}`,
    ]);
  });

  test("a back reference to what is kept, and a label on what is kept, count as well", async () => {
    const root = await blob("root", { "containerd.io/gc.root": "x" });
    const [one, two] = [await blob("one"), await blob("two")];
    const infos = new Map((await metadata.content.list(scope)).map((info) => [info.digest, info]));
    const update = async (digest: string, labels: Labels) => {
      const info = infos.get(digest);
      if (info !== undefined) await metadata.content.update(scope, { ...info, labels: { ...labels } });
    };
    const both = (): Promise<unknown> =>
      Promise.all([
        update(one, { "containerd.io/gc.bref.content": root }),
        update(root, { "containerd.io/gc.root": "x", ...ref(two) }),
      ]);
    expect(await during(both)).toEqual([]);
  });

  test("a blob that another namespace takes over while it is removed is whole or not there", async () => {
    const digest = await blob("shared");
    await metadata.collector.collect();
    const other = { namespace: "other" };
    let taken = 0;
    for (let round = 0; round < 40; round++) {
      await blob("shared");
      const [outcome] = await Promise.all([
        metadata.content.writer(other, { ref: `r${round}`, expected: digest }).then(async (writer) => {
          if (writer.status().offset === 0n) await writer.write(new TextEncoder().encode("shared"));
          else taken++;
          await writer.commit({ expected: digest });
        }),
        Bun.sleep(round % 4).then(() => metadata.collector.collect()),
      ]);
      expect(outcome).toBeUndefined();
      const info = await metadata.content.info(other, digest).catch(() => undefined);
      if (info !== undefined) {
        expect(existsSync(blobFile(digest))).toBe(true);
        await metadata.content.delete(other, digest);
      }
      await metadata.collector.collect();
      expect(existsSync(blobFile(digest))).toBe(false);
    }
    expect(taken).toBeGreaterThan(0);
  });
});

test("explains by the shortest way from a root, and says of what nothing keeps", async () => {
  const leaf = await blob("leaf");
  const manifest = await blob("manifest", ref(leaf));
  const stray = await blob("stray");
  await image("i", manifest);
  const links = await metadata.collector.explain({ kind: "content", namespace: "unit", key: leaf });
  expect(links?.map(({ object, reason }) => [object.kind, object.key, reason])).toEqual([
    ["image", "i", "image"],
    ["content", manifest, "target"],
    ["content", leaf, "containerd.io/gc.ref.content.0"],
  ]);
  expect(
    await metadata.collector.explain({ kind: "content", namespace: "unit", key: stray }),
  ).toBeUndefined();
  const missing = metadata.collector.explain({ kind: "image", namespace: "unit", key: "x" });
  await expect(missing).rejects.toThrow('image "x" in namespace "unit": not found');
  expect(metadata.collector.find("unit", leaf)).toEqual([{ kind: "content", namespace: "unit", key: leaf }]);
});

test("files that no record names go with the first collection", async () => {
  const kept = await blob("kept", { "containerd.io/gc.root": "x" });
  mkdirSync(join(metadata.contentRoot, "blobs/sha256"), { recursive: true });
  writeFileSync(blobFile(digestOf("lost")), "lost");
  await metadata.collector.collect();
  expect([existsSync(blobFile(digestOf("lost"))), existsSync(blobFile(kept))]).toEqual([false, true]);
});

test("many objects: no turn is long, and writers write meanwhile", async () => {
  const count = 3000;
  await metadata.db.update((tx) => {
    const blobs = tx
      .createBucketIfNotExists("v1")
      .createBucketIfNotExists("unit")
      .createBucketIfNotExists("content")
      .createBucketIfNotExists("blob");
    for (let index = 0; index < count; index++) {
      const labels = blobs.createBucket(digestOf(String(index))).createBucket("labels");
      if (index % 2 === 0) labels.put("containerd.io/gc.root", Buffer.from("x"));
    }
  });
  let written = 0;
  let collecting = true;
  const write = async (): Promise<void> => {
    while (collecting) {
      await metadata.leases.create(scope, { id: `l${written}` });
      written++;
    }
  };
  const writing = write();
  const { removed } = await metadata.collector.collect();
  collecting = false;
  await writing;
  expect(removed.length).toBe(count / 2);
  expect(written).toBeGreaterThan(5);
});
