/**
 * Power cuts at every point of content writes, of snapshots that layers are applied to and of a garbage collection: whatever the disk made of what was not synced, a
 * blob that the database knows is whole, a snapshot that it knows is one of its snapshotter's, and a committed one has its files.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Kind, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../../src/bolt/bucket.ts";
import { Db } from "../../src/bolt/db.ts";
import { decodeVarint } from "../../src/lib/varint.ts";
import { pendingCommits } from "../../src/snapshots/journal.ts";
import { walkFilter, walkInfo } from "../../src/snapshots/storage.ts";
import { COLLECTION_WHEN_ASKED, startDaemon } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { MemoryPageFile } from "../support/memory-page-file.ts";
import { type Cut, cutsOf, type Image, type Recording, record } from "../support/power-cut.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { digestOf, tar } from "../support/tar.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
/** Random choices of what was not synced, for each cut. */
const VARIANTS = LONG ? 20 : 3;
const TAR = "application/vnd.oci.image.layer.v1.tar";
const options = inNamespace("cut");

/** Files of each layer by the name of its snapshot. */
const LAYERS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  base: { one: "1".repeat(3000), two: "2".repeat(70_000) },
  top: { three: "3".repeat(500) },
};
const layerOf = (name: string): Buffer =>
  tar(Object.entries(LAYERS[name] ?? {}).map(([file, text]) => ({ name: file, data: Buffer.from(text) })));

/** Keeps what carries it from the collection at the end. */
const ROOT = { "containerd.io/gc.root": "x" };

async function write(connection: Connection, ref: string, data: Uint8Array, labels = {}): Promise<void> {
  async function* send() {
    const half = data.length >> 1;
    yield { action: WriteAction.WRITE, ref, data: data.subarray(0, half) };
    const offset = BigInt(half);
    yield {
      action: WriteAction.COMMIT,
      ref,
      offset,
      data: data.subarray(half),
      expected: digestOf(data),
      labels,
    };
  }
  await Array.fromAsync(connection.client(Content).write(send(), options));
}

async function addLayer(
  connection: Connection,
  snapshotter: string,
  name: string,
  parent: string,
): Promise<void> {
  const snapshots = connection.client(Snapshots);
  const layer = layerOf(name);
  const { mounts } = await snapshots.prepare({ snapshotter, key: `${name} active`, parent }, options);
  const diff = { mediaType: TAR, digest: digestOf(layer), size: BigInt(layer.length) };
  await connection.client(Diff).apply({ diff, mounts }, options);
  await snapshots.commit(
    { snapshotter, key: `${name} active`, name, labels: snapshotter === "native" ? {} : ROOT },
    options,
  );
}

async function work(connection: Connection): Promise<void> {
  for (const name of Object.keys(LAYERS)) await write(connection, name, layerOf(name), ROOT);
  // At once, so that they share commits and syncs.
  await Promise.all([
    addLayer(connection, "native", "base", ""),
    addLayer(connection, "overlayfs", "base", "").then(() =>
      addLayer(connection, "overlayfs", "top", "base"),
    ),
    write(connection, "more", Buffer.from("more content")),
  ]);
  await connection.client(Content).delete({ digest: digestOf(Buffer.from("more content")) }, options);
  await connection.client(Snapshots).view({ snapshotter: "overlayfs", key: "view", parent: "top" }, options);
  await connection.client(Snapshots).remove({ snapshotter: "overlayfs", key: "view" }, options);
  await connection.client(Snapshots).cleanup({ snapshotter: "overlayfs" }, options);
  await write(connection, "garbage", Buffer.from("garbage"));
  await connection.client(Leases).create({ id: "l" }, options);
  await connection.client(Leases).delete({ id: "l", sync: true }, options);
}

let recording: Recording;
const folder = temporaryFolder();
beforeAll(async () => {
  await using daemon = await startDaemon("bunkerd", { config: COLLECTION_WHEN_ASKED });
  await using connection = connectGrpc(daemon.socket);
  // What a start makes is there before, and the worker that applies layers has read its modules.
  await write(connection, "first", Buffer.from("first"));
  recording = await record(daemon.pid, daemon.root, join(folder, "traces"), () => work(connection));
}, 60_000);
afterAll(() => removeFolder(folder));

async function open<T>(image: Image, path: string, read: (db: Db) => T): Promise<T> {
  const content = image.read(path);
  if (content === undefined) throw new Error(`${path} is gone`);
  const file = new MemoryPageFile(content);
  const db = Db.open(file.path, { file });
  try {
    return read(db);
  } finally {
    await db.close();
  }
}

function* named(bucket: Bucket | undefined): Generator<readonly [string, Bucket]> {
  const names: string[] = [];
  bucket?.forEach((key, value) => {
    if (value === undefined) names.push(Buffer.from(key).toString());
  });
  for (const name of names) yield [name, bucket?.bucket(name) as Bucket];
}

interface Known {
  /** Sizes by digest. */
  readonly blobs: ReadonlyMap<string, bigint>;
  /** Snapshotters and their keys. */
  readonly snapshots: readonly (readonly [snapshotter: string, key: string])[];
}

/** Problems of an image, in words. */
async function problemsOf(image: Image): Promise<string[]> {
  const problems: string[] = [];
  const { blobs, snapshots } = await open(image, "io.containerd.metadata.v1.bolt/meta.db", (db) =>
    db.view((tx): Known => {
      const namespace = tx.bucket("v1")?.bucket("cut");
      const content = [...named(namespace?.bucket("content")?.bucket("blob"))];
      return {
        blobs: new Map(
          content.map(([digest, record]) => [
            digest,
            decodeVarint(record.get("size") ?? new Uint8Array()) ?? -1n,
          ]),
        ),
        snapshots: [...named(namespace?.bucket("snapshots"))].flatMap(([snapshotter, keys]) =>
          [...named(keys)].map(
            ([, snapshot]) => [snapshotter, Buffer.from(snapshot.get("name") ?? []).toString()] as const,
          ),
        ),
      };
    }),
  );
  for (const [digest, size] of blobs) {
    const data = image.read(`io.containerd.content.v1.content/blobs/${digest.replace(":", "/")}`);
    if (data === undefined || BigInt(data.length) !== size || digestOf(data) !== digest)
      problems.push(`blob ${digest} of ${size} bytes has ${data?.length}`);
  }
  for (const snapshotter of ["native", "overlayfs"]) {
    const root = `io.containerd.snapshotter.v1.${snapshotter}`;
    const [infos, pending] = await open(image, `${root}/metadata.db`, (db) =>
      db.view((tx) => {
        const found: { readonly name: string; readonly id: string; readonly isCommitted: boolean }[] = [];
        walkInfo(
          tx,
          walkFilter([]),
          (info, id) => void found.push({ name: info.name, id, isCommitted: info.kind === Kind.COMMITTED }),
        );
        return [found, pendingCommits(tx)] as const;
      }),
    );
    // A commit that the database does not know of yet is taken back by the next start.
    const keys = new Set([...infos.map(({ name }) => name), ...pending.map(({ key }) => key)]);
    for (const [of, key] of snapshots)
      if (of === snapshotter && !keys.has(key)) problems.push(`${snapshotter} does not know ${key}`);
    // What only the snapshotter knows was never acknowledged, and goes at the next start.
    const known = new Set(snapshots.flatMap(([of, key]) => (of === snapshotter ? [key] : [])));
    const from = new Map(pending.map(({ name, key }) => [name, key]));
    for (const { name, id, isCommitted } of infos) {
      if (!known.has(name) && !known.has(from.get(name) ?? "")) continue;
      const place = `${root}/snapshots/${id}${snapshotter === "overlayfs" ? "/fs" : ""}`;
      if (!image.has(place)) problems.push(`snapshot ${name} has no folder`);
      if (!isCommitted) continue;
      for (const [file, text] of Object.entries(LAYERS[name.split("/").at(-1) ?? ""] ?? {})) {
        const data = image.read(`${place}/${file}`);
        if (data === undefined || Buffer.compare(data, Buffer.from(text)) !== 0)
          problems.push(`${snapshotter} snapshot ${name} has ${data?.length} bytes of ${file}`);
      }
    }
  }
  return problems;
}

/** What the disk may hold after a cut: nothing of what was not synced, all of it, some of it. */
function* imagesOf(
  { durable, pending, label }: Cut,
  choose: () => boolean,
): Generator<readonly [string, Image]> {
  yield [`${label}, nothing unsynced`, durable];
  if (pending.length === 0) return;
  for (let variant = 0; variant <= VARIANTS; variant++) {
    const image = durable.copy();
    for (const change of pending) if (variant === 0 || choose()) image.apply(change);
    yield [`${label}, variant ${variant}`, image];
  }
}

async function problemsOfAll(of: Recording): Promise<{ images: number; problems: string[] }> {
  const random = randomFrom(testSeed());
  const problems: string[] = [];
  let images = 0;
  for (const cut of cutsOf(of)) {
    for (const [label, image] of imagesOf(cut, () => random.below(2) === 0)) {
      const found = await problemsOf(image).catch((error: unknown) => [String(error)]);
      problems.push(...found.map((problem) => `seed ${random.seed}, ${label}: ${problem}`));
      images++;
    }
  }
  return { images, problems };
}

describe("power cuts", () => {
  test("leave every blob and every committed snapshot that is known whole", async () => {
    const { images, problems } = await problemsOfAll(recording);
    expect(problems.slice(0, 20)).toEqual([]);
    expect(images).toBeGreaterThan(recording.events.length);
  }, 600_000);

  test("the end of the recording is the whole work", async () => {
    const last = [...cutsOf(recording)].at(-1) as Cut;
    const image = last.durable.copy();
    for (const change of last.pending) image.apply(change);
    expect(await problemsOf(image)).toEqual([]);
    for (const name of Object.keys(LAYERS)) {
      expect(
        image.has(`io.containerd.content.v1.content/blobs/${digestOf(layerOf(name)).replace(":", "/")}`),
      ).toBe(true);
    }
    expect(image.has("io.containerd.snapshotter.v1.overlayfs/snapshots/2/fs/three")).toBe(true);
    const gone = digestOf(Buffer.from("garbage")).replace(":", "/");
    expect(image.has(`io.containerd.content.v1.content/blobs/${gone}`)).toBe(false);
    expect(image.has("io.containerd.snapshotter.v1.native/snapshots/1")).toBe(false);
  });

  test("would be noticed: without its folders' syncs, or those of whole file systems, the recording loses something", async () => {
    const without = (isLost: (sync: unknown) => boolean): Recording => ({
      before: recording.before,
      events: recording.events.filter((event) => !("sync" in event) || !isLost(event.sync)),
    });
    const isFolder = (sync: unknown): boolean => sync !== "all" && (sync as { isFolder: boolean }).isFolder;
    expect((await problemsOfAll(without(isFolder))).problems.join()).toMatch(
      /blob sha256:\w+ of \d+ bytes has undefined/,
    );
    expect((await problemsOfAll(without((sync) => sync === "all"))).problems.join()).toMatch(
      /has (?:\d+|undefined) bytes of/,
    );
  }, 600_000);
});
