/** The snapshotters' keys of config.toml, what a snapshotter that cannot start does, and a disk that is full. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chownSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { mount, UnmountFlag, unmount } from "../../src/linux/mount.ts";
import { ctr } from "../support/commands.ts";
import {
  COLLECTION_WHEN_ASKED,
  type Daemon,
  daemonKinds,
  startDaemon,
  WITHOUT_COLLECTION,
} from "../support/daemons.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { buildImage, tar } from "../support/tar.ts";

const options = inNamespace("default");
let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => removeFolder(folder));

async function withSnapshots(
  config: string,
  work: (client: ReturnType<typeof clientOf>, daemon: Daemon) => Promise<void>,
): Promise<void> {
  await using daemon = await startDaemon("bunkerd", { config: `${config}\n${WITHOUT_COLLECTION}` });
  await using connection = connectGrpc(daemon.socket);
  await work(clientOf(connection), daemon);
}

const clientOf = (connection: ReturnType<typeof connectGrpc>) => ({
  snapshots: connection.client(Snapshots),
  introspection: connection.client(Introspection),
});

function overlayfs(...lines: string[]): string {
  return [`[plugins."io.containerd.snapshotter.v1.overlayfs"]`, ...lines].join("\n");
}

/** A committed layer, and the options of an active snapshot over it. */
async function overlayOptions({ snapshots }: ReturnType<typeof clientOf>): Promise<readonly string[]> {
  await snapshots.prepare({ snapshotter: "overlayfs", key: "a", parent: "" }, options);
  await snapshots.commit({ snapshotter: "overlayfs", key: "a", name: "c" }, options);
  const { mounts } = await snapshots.prepare({ snapshotter: "overlayfs", key: "b", parent: "c" }, options);
  return mounts.flatMap(({ options: words }) => words);
}

test("root_path, upperdir_label, mount_options", async () => {
  const root = join(folder, "elsewhere");
  const config = overlayfs(
    `root_path = ${JSON.stringify(root)}`,
    "upperdir_label = true",
    'mount_options = ["volatile", "index=on"]',
  );
  await withSnapshots(config, async (client) => {
    expect(await overlayOptions(client)).toEqual([
      `workdir=${root}/snapshots/2/work`,
      `upperdir=${root}/snapshots/2/fs`,
      `lowerdir=${root}/snapshots/1/fs`,
      "volatile",
      "index=on",
    ]);
    const label = { "containerd.io/snapshot/overlay.upperdir": `${root}/snapshots/2/fs` };
    const key = { snapshotter: "overlayfs", key: "b" };
    expect((await client.snapshots.stat(key, options)).info?.labels).toEqual(label);
    const updated = await client.snapshots.update(
      { snapshotter: "overlayfs", info: { name: "b", labels: { x: "y" } } },
      options,
    );
    expect(updated.info?.labels).toEqual({ ...label, x: "y" });
    const { plugins } = await client.introspection.plugins({ filters: ["id==overlayfs"] });
    expect(plugins[0]?.exports).toEqual({ root });
  });
});

/** Of the sort of a daemon without root: it owns its user namespace and the mounts in it. */
const ROOTLESS = ["unshare", "--user", "--map-root-user", "--mount"];

test.each(daemonKinds("containerd-2.1", "bunkerd").map((kind) => [kind] as const))(
  "%s in a user namespace: overlays are asked for their marks in user xattrs, and layers unpacked by those",
  async (kind) => {
    const directory = { name: "a/", type: "5", mode: 0o755 };
    const layers = [
      tar([directory, { name: "a/old", data: "" }, { name: "gone", data: "" }]),
      tar([
        directory,
        { name: "a/.wh..wh..opq", data: "" },
        { name: "a/new", data: "" },
        { name: ".wh.gone", data: "" },
      ]),
    ];
    const mediaType = "application/vnd.oci.image.layer.v1.tar";
    const image = buildImage("docker.io/library/rootless:1", layers, (blob) => ({ blob, mediaType }));
    writeFileSync(join(folder, "image.tar"), image.archive);
    await using daemon = await startDaemon(kind, { config: COLLECTION_WHEN_ASKED, prefix: ROOTLESS });
    await using connection = connectGrpc(daemon.socket);
    const root = join(daemon.root, "io.containerd.snapshotter.v1.overlayfs/snapshots");
    for (const road of [["--local"], []]) {
      const imported = await ctr("2.1", daemon, "images", "import", ...road, join(folder, "image.tar"));
      expect(imported).toMatchObject({ code: 0 });
      // Of its own layers the kernel makes whiteouts of what an opaque folder hides.
      const shown = readdirSync(root).flatMap((id) => {
        const upper = join(root, id, "fs");
        return existsSync(join(upper, "a/new"))
          ? [join(upper, "gone"), join(upper, "a/old")].map((path) => statSync(path).isCharacterDevice())
          : [];
      });
      expect(shown).toEqual([true, true]);
      await ctr("2.1", daemon, "images", "rm", "--sync", "docker.io/library/rootless:1");
    }
    expect(await overlayOptions(clientOf(connection))).toContain("userxattr");
  },
);

test("sync_remove; an upper folder belongs to its parent's owner", async () => {
  await withSnapshots(overlayfs("sync_remove = true"), async (client, daemon) => {
    const root = join(daemon.root, "io.containerd.snapshotter.v1.overlayfs/snapshots");
    await client.snapshots.prepare({ snapshotter: "overlayfs", key: "a", parent: "" }, options);
    chownSync(join(root, "1/fs"), 1234, 5678);
    await client.snapshots.commit({ snapshotter: "overlayfs", key: "a", name: "c" }, options);
    await client.snapshots.prepare({ snapshotter: "overlayfs", key: "b", parent: "c" }, options);
    expect([statSync(join(root, "2/fs")).uid, statSync(join(root, "2/fs")).gid]).toEqual([1234, 5678]);
    expect(statSync(join(root, "2/work")).mode & 0o777).toBe(0o711);
    const labels = { "containerd.io/snapshot/uidmapping": "0:100000:65536" };
    await client.snapshots.prepare({ snapshotter: "overlayfs", key: "m", parent: "c", labels }, options);
    expect([statSync(join(root, "3/fs")).uid, statSync(join(root, "3/fs")).gid]).toEqual([100_000, 0]);
    for (const mapping of ["nonsense", "1:2:3", "0:-1:5", "0:4294967295:1"]) {
      const bad = { "containerd.io/snapshot/uidmapping": mapping };
      const call = client.snapshots.prepare(
        { snapshotter: "overlayfs", key: "bad", parent: "c", labels: bad },
        options,
      );
      expect((await errorOf(call)).message).toMatch(
        /failed to (?:unmarshal snapshot ID mapped labels|find root pair)/,
      );
    }
    await client.snapshots.remove({ snapshotter: "overlayfs", key: "b" }, options);
    await client.snapshots.cleanup({ snapshotter: "overlayfs" }, options);
    expect(readdirSync(root).sort()).toEqual(["1", "3"]);
  });
});

test("a snapshotter whose database is broken is listed with the reason; the others run", async () => {
  const root = join(folder, "broken");
  mkdirSync(root);
  writeFileSync(join(root, "metadata.db"), "this is no database\n".repeat(1000));
  await withSnapshots(overlayfs(`root_path = ${JSON.stringify(root)}`), async (client) => {
    const { plugins } = await client.introspection.plugins({ filters: ["id==overlayfs"] });
    expect(plugins[0]?.initErr?.message).toContain(`${root}/metadata.db`);
    const call = client.snapshots.prepare({ snapshotter: "overlayfs", key: "a", parent: "" }, options);
    expect((await errorOf(call)).message).toBe("snapshotter not loaded: overlayfs: invalid argument");
    await client.snapshots.prepare({ snapshotter: "native", key: "a", parent: "" }, options);
  });
});

test("a file system that cannot carry overlayfs: the plugin is skipped and says why", async () => {
  const root = join(folder, "proc");
  const lower = join(folder, "lower");
  for (const each of ["lower", "upper", "work", "proc"]) mkdirSync(join(folder, each));
  // An overlay is no place for another one's upper folder.
  const data = `lowerdir=${lower},upperdir=${join(folder, "upper")},workdir=${join(folder, "work")}`;
  mount({ source: "overlay", target: root, type: "overlay", flags: 0, data });
  try {
    await withSnapshots(overlayfs(`root_path = ${JSON.stringify(root)}`), async (client) => {
      const { plugins } = await client.introspection.plugins({ filters: ["id==overlayfs"] });
      expect(plugins[0]?.initErr?.message).toMatch(/failed to mount overlay: mount .*: skip plugin$/);
    });
  } finally {
    unmount(root, UnmountFlag.detach);
  }
});

test("leftovers of a killed daemon are gone after the next start", async () => {
  const root = join(folder, "leftovers");
  mkdirSync(join(root, "snapshots/17/fs"), { recursive: true });
  mkdirSync(join(root, "snapshots/new-123/fs"), { recursive: true });
  mkdirSync(join(root, "snapshots/rm-9/fs"), { recursive: true });
  for (const name of ["lower", "upper", "work", "merged"]) {
    mkdirSync(join(root, "overlay-check-1", name), { recursive: true });
  }
  const at = (name: string): string => join(root, "overlay-check-1", name);
  const data = `lowerdir=${at("lower")},upperdir=${at("upper")},workdir=${at("work")}`;
  mount({ source: "overlay", target: at("merged"), type: "overlay", flags: 0, data });
  await withSnapshots(overlayfs(`root_path = ${JSON.stringify(root)}`), async ({ snapshots }) => {
    await snapshots.prepare({ snapshotter: "overlayfs", key: "a", parent: "" }, options);
    await snapshots.cleanup({ snapshotter: "overlayfs" }, options);
    expect(readdirSync(join(root, "snapshots"))).toEqual(["1"]);
    expect(readdirSync(root).sort()).toEqual(["metadata.db", "snapshots"]);
  });
});

test.each([["overlayfs"], ["native"]])(
  "%s on a full disk: a clear error, and it goes on once there is room",
  async (snapshotter) => {
    const root = join(folder, "small");
    mkdirSync(root);
    mount({ source: "tmpfs", target: root, type: "tmpfs", flags: 0, data: "size=1m,nr_inodes=200" });
    try {
      const config = `[plugins."io.containerd.snapshotter.v1.${snapshotter}"]\nroot_path = ${JSON.stringify(root)}`;
      await withSnapshots(config, async ({ snapshots }) => {
        const prepare = (key: string, parent = "") =>
          snapshots.prepare({ snapshotter, key, parent }, options);
        await prepare("a");
        const folderOfA = join(root, snapshotter === "native" ? "snapshots/1" : "snapshots/1/fs");
        for (let n = 0; n < 60; n++) writeFileSync(join(folderOfA, `f${n}`), "x");
        await snapshots.commit({ snapshotter, key: "a", name: "c" }, options);
        const made: string[] = [];
        let failure: { code: number; message: string } | undefined;
        for (let n = 0; failure === undefined && n < 300; n++) {
          await prepare(`k${n}`, "c").then(
            () => made.push(`k${n}`),
            async (error: unknown) => {
              failure = await errorOf(Promise.reject(error));
            },
          );
        }
        expect(failure).toMatchObject({ code: Code.ResourceExhausted });
        expect(failure?.message).toMatch(/ENOSPC|no space/);
        const keys: string[] = [];
        for await (const { info } of snapshots.list({ snapshotter }, options))
          keys.push(...info.map(({ name }) => name));
        expect(keys.sort()).toEqual(["c", ...made].sort());
        expect(existsSync(folderOfA)).toBe(true);
        await snapshots.remove({ snapshotter, key: made.pop() ?? "" }, options);
        await snapshots.cleanup({ snapshotter }, options);
        await prepare("again", "c");
        const folders = readdirSync(join(root, "snapshots"));
        expect(folders).toHaveLength(made.length + 2);
      });
    } finally {
      unmount(root, UnmountFlag.detach);
    }
  },
);
