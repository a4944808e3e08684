/** Snapshots passed between bunkerd and containerd on one root: each tells, mounts and goes on with what the other made. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Info, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../../src/bolt/bucket.ts";
import { Db } from "../../src/bolt/db.ts";
import { type Daemon, type DaemonKind, daemonKinds, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { contentsOf, withMounts } from "../support/mounts.ts";

const options = inNamespace("exchange");
/** Garbage collection leaves alone what carries it. */
const labels = { "containerd.io/gc.root": "2026-01-01T00:00:00Z", "containerd.io/snapshot/own": "1" };
const SNAPSHOTTERS = ["overlayfs", "native"] as const;

function databaseOf(daemon: Daemon, snapshotter: string): string {
  return join(daemon.root, `io.containerd.snapshotter.v1.${snapshotter}`, "metadata.db");
}

/** Each layer is a file named after it over the layer before. */
async function addLayer(daemon: Daemon, snapshotter: string, name: string, parent: string): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const client = connection.client(Snapshots);
  const key = `${name} active`;
  const { mounts } = await client.prepare({ snapshotter, key, parent, labels }, options);
  await withMounts(mounts, join(daemon.folder, "mnt"), (root) =>
    writeFileSync(join(root, name), daemon.kind),
  );
  await client.commit({ snapshotter, key, name, labels }, options);
  await client.view({ snapshotter, key: `${name} view`, parent: name, labels }, options);
  await client.prepare({ snapshotter, key: `${name} gone`, parent: name, labels }, options);
  await client.remove({ snapshotter, key: `${name} gone` }, options);
  await client.update({ snapshotter, info: { name, labels: { ...labels, by: daemon.kind } } }, options);
}

async function infosOf(daemon: Daemon, snapshotter: string): Promise<Info[]> {
  await using connection = connectGrpc(daemon.socket);
  const infos: Info[] = [];
  for await (const { info } of connection.client(Snapshots).list({ snapshotter }, options))
    infos.push(...info);
  return infos;
}

async function viewOf(daemon: Daemon, snapshotter: string, name: string): Promise<Record<string, string>> {
  await using connection = connectGrpc(daemon.socket);
  const request = { snapshotter, key: `${name} view` };
  const { mounts } = await connection.client(Snapshots).mounts(request, options);
  return withMounts(mounts, join(daemon.folder, "mnt"), contentsOf);
}

async function passOn(kinds: readonly DaemonKind[], snapshotter: string): Promise<void> {
  let daemon: Daemon | undefined;
  let before: Info[] = [];
  const expected: Record<string, string> = { "": "folder" };
  let parent = "";
  try {
    for (const [index, kind] of kinds.entries()) {
      daemon = await startDaemon(kind, daemon === undefined ? {} : { folder: daemon.folder });
      expect(await infosOf(daemon, snapshotter), `what ${kind} finds`).toEqual(before);
      if (parent !== "") expect(await viewOf(daemon, snapshotter, parent)).toEqual(expected);
      const name = `layer-${index}`;
      await addLayer(daemon, snapshotter, name, parent);
      parent = name;
      expected[name] = kind;
      expect(await viewOf(daemon, snapshotter, name)).toEqual(expected);
      before = await infosOf(daemon, snapshotter);
      expect(await daemon.halt()).toBe(0);
      if (!daemonKinds("bunkerd").includes("bunkerd")) continue;
      expect(await checkDatabase(databaseOf(daemon, snapshotter))).toMatchObject({ code: 0 });
      expect(await checkDatabase(daemon.database)).toMatchObject({ code: 0 });
    }
  } finally {
    await daemon?.stop();
  }
}

const ROUTES: readonly (readonly DaemonKind[])[] = [
  ["containerd-2.1", "bunkerd", "containerd-2.1", "bunkerd"],
  ["bunkerd", "containerd-2.1", "bunkerd"],
  ["containerd-1.6", "bunkerd", "containerd-1.6"],
];

for (const snapshotter of SNAPSHOTTERS) {
  describe(snapshotter, () => {
    test.each(ROUTES.map((route) => [daemonKinds(...route).join(" -> "), route] as const))(
      "%s",
      (_name, route) => passOn(daemonKinds(...route), snapshotter),
    );
  });
}

/** Every key as a path, and its value; times differ, their form must not. */
function* linesOf(bucket: Bucket, path: string): Generator<string> {
  const keys: [Buffer, Uint8Array | undefined][] = [];
  bucket.forEach((key, value) => void keys.push([Buffer.from(key), value]));
  if (keys.length === 0) yield `${path}/`;
  for (const [key, value] of keys) {
    const name = `${path}/${path.endsWith("/parents") ? key.toString("hex") : key}`;
    const nested = bucket.bucket(key);
    const hex = Buffer.from(value ?? []).toString("hex");
    if (nested !== undefined) yield* linesOf(nested, name);
    else yield `${name} ${/^010000000e[0-9a-f]{16}ffff$/.test(hex) ? "<time>" : hex}`;
  }
  yield `${path} sequence ${bucket.sequence()}`;
}

async function linesOfFile(daemon: Daemon, file: string): Promise<string[]> {
  const copy = join(daemon.folder, "copy.db");
  copyFileSync(file, copy);
  const db = Db.open(copy);
  const lines = db.view((tx) => {
    const found: string[] = [];
    tx.forEach((name, bucket) => void found.push(...linesOf(bucket, Buffer.from(name).toString())));
    return found;
  });
  await db.close();
  return lines;
}

test.each(SNAPSHOTTERS.map((name) => [name] as const))(
  "%s: both write the same bytes",
  async (snapshotter) => {
    const written: string[][] = [];
    for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
      await using daemon = await startDaemon(kind, {
        config: `[plugins."io.containerd.gc.v1.scheduler"]\nmutation_threshold = 0\nstartup_delay = "1h"`,
      });
      mkdirSync(join(daemon.folder, "mnt"), { recursive: true });
      await using connection = connectGrpc(daemon.socket);
      const client = connection.client(Snapshots);
      await client.prepare({ snapshotter, key: "a", parent: "", labels }, options);
      await client.commit(
        { snapshotter, key: "a", name: "A", labels: { other: "1", empty: "", ...labels } },
        options,
      );
      await client.prepare({ snapshotter, key: "b", parent: "A" }, options);
      await client.commit({ snapshotter, key: "b", name: "B" }, options);
      await client.view({ snapshotter, key: "c", parent: "B", labels }, options);
      await client.prepare({ snapshotter, key: "d", parent: "A", labels }, options);
      const update = {
        snapshotter,
        info: { name: "d", labels: { x: "y" } },
        updateMask: { paths: ["labels"] },
      };
      await client.update(update, options);
      await client.prepare({ snapshotter, key: "e", parent: "", labels: { ...labels, empty: "" } }, options);
      expect(await daemon.halt()).toBe(0);
      written.push([
        ...(await linesOfFile(daemon, databaseOf(daemon, snapshotter))),
        ...(await linesOfFile(daemon, daemon.database)).filter((line) => line.includes("exchange/snapshots")),
      ]);
    }
    expect(written[0]?.length).toBeGreaterThan(60);
    for (const other of written.slice(1)) expect(other).toEqual(written[0] ?? []);
  },
);
