/** Layers applied side by side make the tree that they make one after another, and that containerd makes of them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ctr } from "../support/commands.ts";
import { until } from "../support/containers.ts";
import { type Daemon, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { type Entry, treeOf, withMounts } from "../support/mounts.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { RegistryProxy } from "../support/registry-proxy.ts";
import { type BuiltImage, buildImage, tar } from "../support/tar.ts";

const options = inNamespace("default");
const folder = temporaryFolder();
const directory = { type: "5", mode: 0o755 };
/** The third layer implies a directory, whose attributes only the first knows; the others stand for themselves. */
const LAYERS = [
  tar([
    { name: "private/", type: "5", mode: 0o700, uid: 9, gid: 9 },
    { name: "etc/", ...directory },
    { name: "etc/gone", data: "gone" },
    { name: "opaque/", ...directory },
    { name: "opaque/old", data: "old" },
  ]),
  tar([
    { name: "etc/", ...directory },
    { name: "etc/.wh.gone", data: "" },
    { name: "etc/new", data: "new" },
    { name: "etc/link", type: "1", link: "etc/new" },
  ]),
  tar([{ name: "private/deep/file", data: "implied" }]),
  tar([
    { name: "opaque/", ...directory },
    { name: "opaque/.wh..wh..opq", data: "" },
    { name: "opaque/new", data: "new" },
  ]),
  tar([{ name: "last", data: "last", mode: 0o4755, uid: 1000 }]),
];
let registry: Registry;
let proxy: RegistryProxy;
let image: BuiltImage;

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  proxy = new RegistryProxy(registry);
  image = buildImage("docker.io/library/box:1", LAYERS, (layer) => ({
    blob: gzipSync(layer),
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  }));
  await pushImage(registry, "library/box", "1", image);
  writeFileSync(join(folder, "box.tar"), image.archive);
});
afterAll(async () => {
  await proxy.stop();
  await registry.stop();
  removeFolder(folder);
});

const unpacks = (count: number): string =>
  `${WITHOUT_COLLECTION}\n[plugins."io.containerd.transfer.v1.local"]\nmax_concurrent_unpacks = ${count}`;

/** Of what the image shows, and what each snapshot is of. */
async function shown(
  daemon: Daemon,
): Promise<{ tree: Record<string, Entry>; parents: Record<string, string> }> {
  await using connection = connectGrpc(daemon.socket);
  const snapshots = connection.client(Snapshots);
  const parents: Record<string, string> = {};
  for await (const { info } of snapshots.list({ snapshotter: "overlayfs" }, options))
    for (const { name, parent } of info) parents[name] = parent;
  const parent = image.chainIds.at(-1) ?? "";
  const { mounts } = await snapshots.view({ snapshotter: "overlayfs", key: "view", parent }, options);
  const tree = await withMounts(mounts, join(folder, "view"), treeOf);
  // Of directories that are only implied, the moment's.
  const withoutNow = ([path, entry]: [string, Entry]): [string, Entry] => {
    return [path, path === "" || path.startsWith("private") ? { ...entry, modified: 0n } : entry];
  };
  return { tree: Object.fromEntries(Object.entries(tree).map(withoutNow)), parents };
}

test("the same tree, the same chain", async () => {
  const found: Awaited<ReturnType<typeof shown>>[] = [];
  for (const [kind, config] of [
    ["containerd-2.1", WITHOUT_COLLECTION],
    ["bunkerd", unpacks(1)],
    ["bunkerd", unpacks(4)],
  ] as const) {
    await using daemon = await startDaemon(kind, { config });
    expect((await ctr("2.1", daemon, "images", "import", join(folder, "box.tar"))).code).toBe(0);
    found.push(await shown(daemon));
  }
  expect(Object.keys(found[0]?.tree ?? {}).length).toBeGreaterThan(8);
  for (const other of found.slice(1)) expect(other).toEqual(found[0] ?? { tree: {}, parents: {} });
});

test("later layers are applied before the first is there", async () => {
  await using daemon = await startDaemon("bunkerd", { config: unpacks(4) });
  const release = proxy.hold(image.layers[0]?.digest ?? "", 10);
  const pulling = ctr("2.1", daemon, "images", "pull", "--plain-http", `${proxy.host}/library/box:1`);
  const root = join(daemon.root, "io.containerd.snapshotter.v1.overlayfs/snapshots");
  await until("the last layer on disk", () =>
    readdirSync(root).some((id) => existsSync(join(root, id, "fs/last"))),
  );
  release();
  expect((await pulling).code).toBe(0);
  expect(Object.keys((await shown(daemon)).parents).sort()).toEqual([...image.chainIds].sort());
});

test("a layer that is wrong ends the rest, and says so", async () => {
  await using daemon = await startDaemon("bunkerd", { config: unpacks(4) });
  const digest = image.layers[3]?.digest ?? "";
  proxy.change(digest, Buffer.alloc(image.layers[3]?.blob.length ?? 0));
  const { code, stderr } = await ctr(
    "2.1",
    daemon,
    "images",
    "pull",
    "--plain-http",
    `${proxy.host}/library/box:1`,
  );
  proxy.change(digest, undefined);
  expect(code).toBe(1);
  expect(stderr).toContain(digest);
  const listed = await ctr("2.1", daemon, "snapshots", "ls");
  expect(listed.stdout).not.toContain("extract");
});
