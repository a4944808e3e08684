/**
 * `kill -9` of the daemon while it pulls and imports, round after round: what an image's record names is all there, a later try goes on with what has come, and once the
 * leases of the dead are gone nothing is left of them. 50 rounds with BUNKERD_TEST_LONG=1.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ctr } from "../support/commands.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { contentsOf, withMounts } from "../support/mounts.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { type BuiltImage, buildImage, type TarEntry, tar } from "../support/tar.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 8 : 50;
const LONGEST_ROUND_MS = 500;
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const IMPORTED = "docker.io/library/imported:1";
const folder = temporaryFolder();
const options = inNamespace("default");
const random = randomFrom(testSeed());
let registry: Registry;

function noise(bytes: number): Buffer {
  return Buffer.from(Uint32Array.from({ length: bytes / 4 }, () => random.below(2 ** 32)).buffer);
}

function layerOf(name: string, files: number): Buffer {
  const entries: TarEntry[] = [{ name: `${name}/`, type: "5", mode: 0o755 }];
  for (let n = 0; n < files; n++) entries.push({ name: `${name}/${n}`, data: noise(100_000) });
  return tar(entries);
}

function imageOf(name: string): BuiltImage {
  const layers = ["a", "b", "c", "d"].map((layer) => layerOf(`${name}-${layer}`, 30));
  return buildImage(IMPORTED, layers, (layer) => ({ blob: gzipSync(layer, { level: 1 }), mediaType: LAYER }));
}

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  await pushImage(registry, "library/pulled", "1", imageOf("pulled"));
  writeFileSync(join(folder, "image.tar"), imageOf("imported").archive);
});

afterAll(async () => {
  await registry.stop();
  removeFolder(folder);
});

const commands = () => [
  ["images", "pull", "--plain-http", `${registry.host}/library/pulled:1`],
  ["images", "import", join(folder, "image.tar")],
];

/** What the record of an image names is there, whole. */
async function expectWhole(daemon: Daemon): Promise<void> {
  const check = await ctr("2.1", daemon, "images", "check");
  expect({ code: check.code, stderr: check.stderr }).toEqual({ code: 0, stderr: "" });
  for (const line of check.stdout.trim().split("\n").slice(1))
    expect(line).toMatch(/ complete \(5\/5\) .* true/);
}

test.each(["transfer.fetched=kill@3", "transfer.applied=kill@2", "transfer.committed=kill@2"])(
  "killed at %s: the next daemon pulls what is missing",
  async (failpoint) => {
    process.env["BUNKERD_FAILPOINTS"] = failpoint;
    const killed = await startDaemon("bunkerd");
    delete process.env["BUNKERD_FAILPOINTS"];
    const [pull = []] = commands();
    expect((await ctr("2.1", killed, ...pull)).code).toBe(1);
    await killed.exited;
    expect((await checkDatabase(killed.database)).code).toBe(0);
    await using daemon = await startDaemon("bunkerd", { folder: killed.folder });
    expect((await ctr("2.1", daemon, "images", "ls", "-q")).stdout).toBe("");
    const { code, stderr } = await ctr("2.1", daemon, ...pull);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    await expectWhole(daemon);
  },
);

test("kill -9 amid pulls and imports", async () => {
  let daemon = await startDaemon("bunkerd");
  for (let round = 0; round < ROUNDS; round++) {
    const running = commands().map((command) => ctr("2.1", daemon, ...command));
    await Bun.sleep(random.below(LONGEST_ROUND_MS));
    await daemon.kill();
    await Promise.all(running);
    expect((await checkDatabase(daemon.database)).code).toBe(0);
    daemon = await startDaemon("bunkerd", { folder: daemon.folder });
    await expectWhole(daemon);
  }
  await using last = daemon;
  for (const command of commands()) {
    const { code, stderr } = await ctr("2.1", last, ...command);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  }
  await expectWhole(last);
  await using connection = connectGrpc(last.socket);
  const leases = connection.client(Leases);
  for (const { id } of (await leases.list({}, options)).leases)
    await leases.delete({ id, sync: true }, options);
  await connection
    .client(Images)
    .delete({ name: "none", sync: true }, options)
    .catch(() => undefined);

  expect((await connection.client(Content).listStatuses({}, options)).statuses).toEqual([]);
  expect(readdirSync(join(last.root, "io.containerd.content.v1.content/ingest"))).toEqual([]);
  const snapshots = connection.client(Snapshots);
  const infos = [];
  for await (const { info } of snapshots.list({ snapshotter: "overlayfs" }, options)) infos.push(...info);
  expect(infos.map(({ name }) => name).filter((name) => !name.startsWith("sha256:"))).toEqual([]);
  expect(infos).toHaveLength(8);

  const parents = new Set(infos.map(({ parent }) => parent));
  for (const { name } of infos.filter((info) => !parents.has(info.name))) {
    const key = `view ${name}`;
    const { mounts } = await snapshots.view({ snapshotter: "overlayfs", key, parent: name }, options);
    const tree = await withMounts(mounts, join(folder, "view"), contentsOf);
    const files = Object.values(tree).filter((content) => content !== "folder");
    expect(files.map((content) => content.length)).toEqual(Array(120).fill(100_000));
    await snapshots.remove({ snapshotter: "overlayfs", key }, options);
  }
}, 120_000);
