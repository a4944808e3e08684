/** Images imported by ctr into containerd and bunkerd: the same trees; and layers made of what differs, the same bytes. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { makeNode } from "../../src/linux/inode.ts";
import { mountPointsBelow } from "../../src/linux/mountinfo.ts";
import { setXattr } from "../../src/linux/xattr.ts";
import { CTR_VERSIONS, ctr } from "../support/commands.ts";
import { type Daemon, type DaemonKind, startDaemon } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { type Connection, connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { type Entry, treeOf, withMounts } from "../support/mounts.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type BuiltImage, buildImage, digestOf, gnuLong, type TarEntry, tar } from "../support/tar.ts";

const OCI = "application/vnd.oci.image.layer.v1.tar";
const KINDS: readonly DaemonKind[] = ["containerd-2.1", "bunkerd"];
const options = inNamespace("default");
/** Or containerd's garbage collection takes it away under our hands. */
const labels = { "containerd.io/gc.root": "now" };

/** security.capability of cap_net_raw+ep, version 2. */
const CAPABILITY = Buffer.from("0100000200200000000000000000000000000000", "hex");

function everything(busybox: Uint8Array): TarEntry[] {
  return [
    { name: "./", type: "5", mode: 0o711 },
    { name: "bin/", type: "5", mode: 0o755, mtime: 1_000_000_000 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    { name: "bin/sh", type: "1", link: "bin/busybox", mode: 0o755 },
    { name: "bin/su", mode: 0o4755, data: "setuid", uid: 1000, gid: 1001 },
    { name: "bin/ping", mode: 0o755, data: "ping", pax: { "SCHILY.xattr.security.capability": CAPABILITY } },
    { name: "tmp/", type: "5", mode: 0o1777, mtime: 1 },
    { name: "dev/null", type: "3", device: [1, 3], mode: 0o666 },
    { name: "dev/sda", type: "4", device: [8, 0], mode: 0o660, gid: 6 },
    { name: "run/fifo", type: "6", mode: 0o600 },
    { name: "lib", type: "2", link: "usr/lib" },
    { name: "absolute", type: "2", link: "/usr/lib", uid: 5 },
    { name: "hard-to-link", type: "1", link: "absolute", mode: 0o777 },
    { name: "lib/through-link", data: "by link" },
    { name: "x", data: "long", pax: { path: `${"n".repeat(200)}/${"ö".repeat(80)}` } },
    gnuLong("L", `gnu/${"g".repeat(150)}`),
    { name: "gnu", data: "gnu long" },
    { name: "nanoseconds", data: "", pax: { mtime: "1234567890.123456789" } },
    { name: "before-1970", data: "", pax: { mtime: "-100" } },
    { name: "user-xattr", data: "x", pax: { "SCHILY.xattr.user.k": "v", "SCHILY.xattr.trusted.k": "v" } },
    { name: Buffer.from([0x6e, 0xff, 0xfe]), data: "no UTF-8" },
    { name: "twice", data: "first" },
    { name: "twice", data: "second" },
    { name: "kind/", type: "5" },
    { name: "kind/x", data: "" },
    { name: "kind", data: "now a file" },
    {
      name: "sparse",
      data: "ab",
      pax: { "GNU.sparse.numblocks": "1", "GNU.sparse.map": "4096,2", "GNU.sparse.size": "9000" },
    },
    { name: "etc/a", data: "a" },
    { name: "etc/b", data: "b", uid: 7 },
    { name: "private/", type: "5", mode: 0o700, uid: 9, gid: 9, pax: { "SCHILY.xattr.user.d": "dir" } },
    { name: "private/deep/file", data: "1" },
    { name: "opaque/old", data: "old" },
    { name: "gone/x/y", data: "" },
  ];
}

const second: readonly TarEntry[] = [
  { name: "etc/.wh.a", data: "" },
  { name: "etc/b", data: "changed", mode: 0o600 },
  { name: "private/deep/second", data: "2" },
  { name: "opaque/.wh..wh..opq", data: "" },
  { name: "opaque/new", data: "new" },
  { name: ".wh.gone", data: "" },
  { name: "twice", type: "5", mode: 0o750 },
  { name: "/absolute-name", data: "x" },
  { name: "../../outside", data: "x" },
];

interface Running {
  readonly daemon: Daemon;
  readonly connection: Connection;
}

const running = new Map<DaemonKind, Running>();
const folder = temporaryFolder();
const images = new Map<string, BuiltImage>();

const PACKINGS = {
  plain: (layer: Buffer) => ({ blob: layer, mediaType: OCI }),
  gzip: (layer: Buffer) => ({ blob: gzipSync(layer), mediaType: `${OCI}+gzip` }),
  zstd: (layer: Buffer) => ({ blob: zstdCompressSync(layer), mediaType: `${OCI}+zstd` }),
  docker: (layer: Buffer) => ({
    blob: layer,
    mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  }),
} as const;

beforeAll(async () => {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  for (const [name, pack] of Object.entries(PACKINGS)) {
    const layers = [tar([...everything(busybox), { name: "packing", data: name }]), tar(second)];
    const image = buildImage(`docker.io/library/${name}:1`, layers, pack);
    images.set(name, image);
    writeFileSync(join(folder, `${name}.tar`), image.archive);
  }
  for (const kind of KINDS) {
    const daemon = await startDaemon(kind);
    running.set(kind, { daemon, connection: connectGrpc(daemon.socket) });
  }
});

afterAll(async () => {
  for (const { daemon, connection } of running.values()) {
    connection.close();
    await daemon.stop();
  }
  removeFolder(folder);
});

function of(kind: DaemonKind): Running {
  const found = running.get(kind);
  if (found === undefined) throw new Error(`${kind} does not run`);
  return found;
}

let views = 0;

/** What a snapshot shows; times of folders that were written to after they were made are the moment's. */
async function viewOf(
  { connection }: Running,
  snapshotter: string,
  parent: string,
): Promise<Record<string, Entry>> {
  const snapshots = connection.client(Snapshots);
  const key = `view-${views++}`;
  const { mounts } = await snapshots.view({ snapshotter, key, parent, labels }, options);
  try {
    return await withMounts(mounts, join(folder, key), withoutNow);
  } finally {
    await snapshots.remove({ snapshotter, key }, options);
  }
}

const RECENTLY = BigInt(Date.now()) * 1_000_000n - 3_600_000_000_000n;

function withoutNow(root: string): Record<string, Entry> {
  const entries = Object.entries(treeOf(root));
  return Object.fromEntries(
    entries.map(([path, entry]) => [path, entry.modified > RECENTLY ? { ...entry, modified: 0n } : entry]),
  );
}

describe.each(CTR_VERSIONS)("ctr %s", (version) => {
  test.each(Object.keys(PACKINGS))("images import, %s", async (packing) => {
    const image = images.get(packing);
    const trees: Record<string, Entry>[] = [];
    for (const kind of KINDS) {
      const { daemon } = of(kind);
      const local = version === "2.1" ? ["--local"] : [];
      const result = await ctr(version, daemon, "images", "import", ...local, join(folder, `${packing}.tar`));
      expect({ code: result.code, stderr: result.stderr.replaceAll(/time=.*\n/g, "") }).toMatchObject({
        code: 0,
      });
      trees.push(await viewOf(of(kind), "overlayfs", image?.chainIds.at(-1) ?? ""));
    }
    const [reference, ours] = trees;
    expect(Object.keys(ours ?? {}).length).toBeGreaterThan(30);
    expect(ours).toEqual(reference ?? {});
    for (const kind of KINDS) {
      const removed = await ctr(
        version,
        of(kind).daemon,
        "images",
        "rm",
        "--sync",
        `docker.io/library/${packing}:1`,
      );
      expect(removed.code).toBe(0);
    }
  });
});

/** Puts a blob into the daemon's content. */
async function ingest({ connection }: Running, blob: Uint8Array): Promise<{ digest: string; size: bigint }> {
  const digest = digestOf(blob);
  async function* requests() {
    yield {
      action: WriteAction.COMMIT,
      ref: digest,
      data: blob,
      total: BigInt(blob.length),
      expected: digest,
    };
  }
  try {
    for await (const _answer of connection.client(Content).write(requests(), options));
  } catch (error) {
    if (!String(error).includes("already exists")) throw error;
  }
  return { digest, size: BigInt(blob.length) };
}

async function blobOf({ connection }: Running, digest: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { data } of connection.client(Content).read({ digest }, options)) parts.push(data);
  return Buffer.concat(parts);
}

let keys = 0;

/** Applies layers one on the other; answers the name of the last. */
async function applyAll(on: Running, snapshotter: string, layers: readonly Buffer[]): Promise<string> {
  const { connection } = on;
  let parent = "";
  for (const layer of layers) {
    const key = `layer-${keys++}`;
    const { mounts } = await connection
      .client(Snapshots)
      .prepare({ snapshotter, key, parent, labels }, options);
    const { digest, size } = await ingest(on, layer);
    const diff = { mediaType: OCI, digest, size };
    const { applied } = await connection.client(Diff).apply({ diff, mounts }, options);
    expect(applied).toMatchObject({ mediaType: OCI, digest, size });
    parent = `${key}-committed`;
    await connection.client(Snapshots).commit({ snapshotter, name: parent, key, labels }, options);
  }
  return parent;
}

test("native: deletions are carried out, the tree is the reference's", async () => {
  const busybox = Buffer.from("busybox");
  const layers = [tar(everything(busybox)), tar(second)];
  const trees: Record<string, Entry>[] = [];
  for (const kind of KINDS) {
    const on = of(kind);
    trees.push(await viewOf(on, "native", await applyAll(on, "native", layers)));
  }
  expect(Object.keys(trees[1] ?? {})).not.toContain("opaque/old");
  expect(trees.map(asCopied)[1]).toEqual(asCopied(trees[0] ?? {}));
});

/** containerd's copies of a parent lose times of folders and second names of links; ours keep them. */
function asCopied(tree: Record<string, Entry>): Record<string, Entry> {
  const entries = Object.entries(tree).map(([path, entry]): [string, Entry] => {
    if (entry.type === "folder") return [path, { ...entry, modified: 0n }];
    return [path, entry.type === "link" ? { ...entry, links: 1n } : entry];
  });
  return Object.fromEntries(entries);
}

/** Changes a tree in every way that a layer can tell. */
function change(root: string): void {
  const at = (name: string): string => join(root, name);
  writeFileSync(at("etc/b"), "changed again");
  writeFileSync(at("added"), Buffer.alloc(3_000_000, "added"));
  chmodSync(at("bin/su"), 0o755);
  rmSync(at("opaque"), { recursive: true });
  rmSync(at("bin/sh"));
  mkdirSync(at("new/folder"), { recursive: true });
  writeFileSync(at(`new/folder/${"l".repeat(150)}`), "long name");
  writeFileSync(at("new/ä"), "not ASCII");
  linkSync(at("added"), at("new/hard"));
  symlinkSync("../etc", at("new/link"));
  symlinkSync("t".repeat(200), at("new/long-link"));
  lchownSync(at("new/link"), 1000, 2_500_000);
  makeNode(at("new/fifo"), 0o010600, 0n);
  makeNode(at("new/device"), 0o020600, 0x0105n);
  setXattr(at("new/ä"), "security.capability", CAPABILITY);
  rmSync(at("tmp"), { recursive: true });
  writeFileSync(at("tmp"), "a folder became a file");
  rmSync(at("absolute"));
  mkdirSync(at("absolute"));
  for (const name of [
    "added",
    "new/folder",
    "new/ä",
    "new/fifo",
    "new/device",
    "new",
    "tmp",
    "absolute",
    "etc/b",
    "etc",
    "bin",
    "",
  ]) {
    utimesSync(at(name), 1_600_000_000, 1_600_000_000);
  }
  const links = ["new/link", "new/long-link", `new/folder/${"l".repeat(150)}`];
  for (const name of links) Bun.spawnSync(["touch", "-h", "-d", "@1600000000", at(name)]);
  utimesSync(at("new/folder"), 1_600_000_000, 1_600_000_000);
}

const UNPACK: Readonly<Record<string, (blob: Buffer) => Buffer>> = {
  [OCI]: (blob) => blob,
  [`${OCI}+gzip`]: (blob) => gunzipSync(blob),
  [`${OCI}+zstd`]: (blob) => zstdDecompressSync(blob),
};

describe.each(["overlayfs", "native"])("%s", (snapshotter) => {
  test("a diff has the reference's bytes and applies back to the same tree", async () => {
    const digests: string[] = [];
    for (const kind of KINDS) {
      const on = of(kind);
      const snapshots = on.connection.client(Snapshots);
      const parent = await applyAll(on, snapshotter, [tar(everything(Buffer.from("busybox"))), tar(second)]);
      const key = `changed-${snapshotter}`;
      const { mounts: right } = await snapshots.prepare({ snapshotter, key, parent, labels }, options);
      await withMounts(right, join(folder, `work-${kind}`), change);
      const { mounts: left } = await snapshots.view(
        { snapshotter, key: `${key}-old`, parent, labels },
        options,
      );
      for (const [mediaType, unpack] of Object.entries(UNPACK)) {
        const request = { left, right, mediaType, labels: { ...labels, made: "here" } };
        const { diff } = await on.connection.client(Diff).diff(request, options);
        const layer = unpack(await blobOf(on, diff?.digest ?? ""));
        digests.push(digestOf(layer));
        if (mediaType === OCI) continue;
        const { info } = await on.connection.client(Content).info({ digest: diff?.digest ?? "" }, options);
        expect(info?.labels).toMatchObject({ made: "here", "containerd.io/uncompressed": digestOf(layer) });
      }
      if (kind !== "bunkerd") continue;
      const { diff } = await on.connection.client(Diff).diff({ left, right }, options);
      expect(diff?.mediaType).toBe(`${OCI}+gzip`);
      await roundTrip(on, snapshotter, parent, right, gunzipSync(await blobOf(on, diff?.digest ?? "")));
    }
    expect(new Set(digests).size).toBe(1);
  });
});

async function roundTrip(
  on: Running,
  snapshotter: string,
  parent: string,
  changed: readonly Mount[],
  layer: Buffer,
): Promise<void> {
  const snapshots = on.connection.client(Snapshots);
  const key = `back-${snapshotter}`;
  const { mounts } = await snapshots.prepare({ snapshotter, key, parent, labels }, options);
  const { digest, size } = await ingest(on, layer);
  await on.connection.client(Diff).apply({ diff: { mediaType: OCI, digest, size }, mounts }, options);
  const expected = await withMounts(changed, join(folder, "expected"), withoutNow);
  const found = await withMounts(mounts, join(folder, "found"), withoutNow);
  // The root itself is no entry of a layer.
  expect({ ...found, "": 0 }).toEqual({ ...expected, "": 0 });
}

test("what cannot be applied is refused as the reference does, and nothing stays mounted", async () => {
  const broken = tar([
    { name: "f", data: "" },
    { name: "f/x", data: "" },
  ]);
  for (const kind of KINDS) {
    const on = of(kind);
    const { connection, daemon } = on;
    const key = "refused";
    const { mounts } = await connection
      .client(Snapshots)
      .prepare({ snapshotter: "overlayfs", key, labels }, options);
    const diff = connection.client(Diff);
    const blob = await ingest(on, broken);
    const apply = (mediaType: string, digest = blob.digest) =>
      errorOf(diff.apply({ diff: { mediaType, digest, size: blob.size }, mounts }, options));
    expect(await apply("application/x")).toEqual({
      code: 2,
      message: "failed to get stream processor for application/x: no processor for media-type",
    });
    expect(await apply(OCI, `sha256:${"0".repeat(64)}`)).toMatchObject({ code: 5 });
    expect(await apply(OCI)).toMatchObject({ code: 2, message: expect.stringContaining("not a directory") });
    expect(await apply(`${OCI}+gzip`)).toMatchObject({ code: 2 });
    const refused = await errorOf(diff.diff({ left: mounts, right: mounts, mediaType: "x" }, options));
    expect(refused).toEqual({ code: 12, message: "unsupported diff media type: x: not implemented" });
    expect(mountPointsBelow(daemon.folder)).toEqual([]);
    expect(lstatSync(daemon.folder).isDirectory()).toBe(true);
  }
});
