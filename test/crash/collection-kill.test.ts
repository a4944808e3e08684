/**
 * `kill -9` at each step of a garbage collection: what is kept is whole afterwards, what is not is gone after the next collection, its
 * files too, and nothing that is left refers to what has gone.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { COLLECTION_WHEN_ASKED, type Daemon, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

/** The steps, and of those that many objects pass how far it gets. */
const FAILPOINTS = [
  "gc.marked",
  "bolt.beforeMeta@2",
  "gc.removedSome",
  "gc.removed",
  "gc.freed",
  "content.beforeRemove@3",
  "snapshots.removed@2",
];
const options = inNamespace("crash");
const leased = inNamespace("crash", { "containerd-lease": "l" });
/** More than one transaction removes. */
const CHAINS = 120;

const digestOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;
const snapshotter = "native";

async function write(connection: Connection, text: string, labels: Record<string, string>): Promise<void> {
  async function* send() {
    const data = new TextEncoder().encode(text);
    yield { action: WriteAction.COMMIT, ref: text, data, expected: digestOf(text), labels };
  }
  await Array.fromAsync(connection.client(Content).write(send(), leased));
}

/** A tree that an image keeps, chains of two that only the lease keeps, snapshots of both. */
async function fill(connection: Connection): Promise<void> {
  await connection.client(Leases).create({ id: "l" }, options);
  await write(connection, "kept leaf", {});
  await write(connection, "kept", {
    "containerd.io/gc.ref.content": digestOf("kept leaf"),
    [`containerd.io/gc.ref.snapshot.${snapshotter}`]: "kept",
  });
  const target = { digest: digestOf("kept"), mediaType: "x", size: 4n };
  await connection.client(Images).create({ image: { name: "i", target } }, options);
  const chain = async (index: number): Promise<void> => {
    await write(connection, `leaf ${index}`, {});
    await write(connection, `top ${index}`, { "containerd.io/gc.ref.content": digestOf(`leaf ${index}`) });
  };
  await Promise.all(Array.from({ length: CHAINS }, (_, index) => chain(index)));
  const snapshots = connection.client(Snapshots);
  for (const [name, parent] of [
    ["kept", ""],
    ["gone", "kept"],
    ["gone too", "gone"],
  ] as const) {
    await snapshots.prepare({ snapshotter, key: `${name} active`, parent }, leased);
    await snapshots.commit({ snapshotter, key: `${name} active`, name }, leased);
  }
}

/** Digests that blobs refer to by labels and that are not there. */
async function dangling(connection: Connection): Promise<string[]> {
  const blobs = (await Array.fromAsync(connection.client(Content).list({}, options))).flatMap(
    ({ info }) => info,
  );
  const digests = new Set(blobs.map(({ digest }) => digest));
  return blobs.flatMap(({ labels }) => {
    const target = labels["containerd.io/gc.ref.content"];
    return target === undefined || digests.has(target) ? [] : [target];
  });
}

async function leftOf(connection: Connection, { root }: Daemon): Promise<unknown> {
  const blobs = (await Array.fromAsync(connection.client(Content).list({}, options))).flatMap(
    ({ info }) => info,
  );
  const snapshots = (
    await Array.fromAsync(connection.client(Snapshots).list({ snapshotter }, options))
  ).flatMap(({ info }) => info);
  const files = readdirSync(join(root, "io.containerd.content.v1.content/blobs/sha256"));
  return {
    blobs: blobs.map(({ digest }) => digest).sort(),
    snapshots: snapshots.map(({ name }) => name),
    files: files.map((sum) => `sha256:${sum}`).sort(),
    folders: readdirSync(join(root, `io.containerd.snapshotter.v1.${snapshotter}/snapshots`)).length,
  };
}

/** A root as {@link fill} leaves it. */
const shared = temporaryFolder();
beforeAll(async () => {
  const daemon = await startDaemon("bunkerd", { folder: shared, config: WITHOUT_COLLECTION });
  const connection = connectGrpc(daemon.socket);
  await fill(connection);
  connection.close();
  expect(await daemon.halt()).toBe(0);
}, 60_000);
afterAll(() => removeFolder(shared));

test.each(FAILPOINTS.map((failpoint) => [failpoint] as const))(
  "%s",
  async (failpoint) => {
    const [name, visit] = failpoint.split("@");
    const folder = temporaryFolder();
    cpSync(join(shared, "root"), join(folder, "root"), { recursive: true, preserveTimestamps: true });
    process.env["BUNKERD_FAILPOINTS"] = `${name}=kill${visit === undefined ? "" : `@${visit}`}`;
    const second = await startDaemon("bunkerd", { folder, config: COLLECTION_WHEN_ASKED }).finally(() => {
      delete process.env["BUNKERD_FAILPOINTS"];
    });
    const dying = connectGrpc(second.socket);
    await expect(dying.client(Leases).delete({ id: "l", sync: true }, options)).rejects.toThrow();
    expect(await second.exited).not.toBe(0);
    dying.close();
    expect(await checkDatabase(second.database)).toMatchObject({ code: 0 });

    await using third = await startDaemon("bunkerd", { folder, config: COLLECTION_WHEN_ASKED });
    await using connection = connectGrpc(third.socket);
    expect(await dangling(connection)).toEqual([]);
    // The lease may not have been deleted yet, where the kill came with its transaction.
    await connection
      .client(Leases)
      .delete({ id: "l" }, options)
      .catch(() => undefined);
    await connection.client(Leases).create({ id: "again" }, options);
    await connection.client(Leases).delete({ id: "again", sync: true }, options);
    const digests = [digestOf("kept"), digestOf("kept leaf")].sort();
    const expected = { blobs: digests, files: digests, snapshots: ["kept"], folders: 1 };
    expect(await leftOf(connection, third)).toEqual(expected);
  },
  60_000,
);
