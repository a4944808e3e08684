/** A second bunkerd's snapshotters and content, reached by its socket: they pass the suites of the local ones, and a daemon runs on them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Client } from "../../src/client/client.ts";
import { Remote } from "../../src/client/remote.ts";
import { remoteSnapshotter } from "../../src/client/snapshotter.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace } from "../support/containers.ts";
import { contentSuite } from "../support/content-suite.ts";
import { type Daemon, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { SNAPSHOTTER_CASES, WORDS } from "../support/snapshotter-suite.ts";
import { buildImage, tar } from "../support/tar.ts";

let served: Daemon;
const folder = temporaryFolder();

beforeAll(async () => {
  WORDS.compared = false;
  served = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
});
afterAll(async () => {
  endNamespaces();
  await served.stop();
  removeFolder(folder);
});

/** These are of what only a snapshotter by itself does: the first counts its folders, the second gives it parents, which namespaces pass over. */
const LOCAL = ["hostile keys", "commits that are refused"];
const cases = Object.entries(SNAPSHOTTER_CASES).filter(([title]) => !LOCAL.includes(title));
const rootOf = (daemon: Daemon, name: string) => join(daemon.root, `io.containerd.snapshotter.v1.${name}`);

describe.each(["overlayfs", "native"] as const)("%s by its socket", (name) => {
  test.each(cases)(
    "%s",
    async (title, run) => {
      const namespace = `${name}-${Bun.hash(title).toString(36)}`;
      const work = join(folder, namespace);
      mkdirSync(work);
      const remote = new Remote(served.socket);
      try {
        const snapshotter = remoteSnapshotter(remote, { name, namespace });
        await run({ name, snapshotter, root: rootOf(served, name), work });
        await snapshotter.close();
      } finally {
        remote.close();
      }
      // "128 layers" are 256 syncs, which a busy disk takes seconds for.
    },
    30_000,
  );
});

describe("content by its socket", () => {
  let client: Client;
  beforeAll(() => {
    client = new Client(served.socket);
  });
  afterAll(() => client.close());
  contentSuite(() => client.content());
});

test("a container runs on a snapshotter of another process, which may go and come back", async () => {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    { name: "bin/sh", type: "2", link: "busybox" },
  ]);
  const pack = (bytes: Buffer) => ({
    blob: gzipSync(bytes),
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  });
  const archive = join(folder, "box.tar");
  writeFileSync(archive, buildImage("docker.io/library/box:1", [layer], pack).archive);
  let backend = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  try {
    const plugin = (name: string, type: string): string =>
      [
        `[proxy_plugins.${name}]`,
        `type = "${type}"`,
        `address = "${backend.socket}"`,
        'platform = "linux/arm64"',
        'capabilities = ["remap-ids"]',
        `[proxy_plugins.${name}.exports]`,
        'root = "/somewhere"',
      ].join("\n");
    await using daemon = await startDaemon("bunkerd", {
      config: [
        WITHOUT_COLLECTION,
        plugin("native", "snapshot"),
        plugin("far", "io.containerd.differ.v1"),
      ].join("\n"),
    });
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    const plugins = await ctr("plugins", "ls", "--detailed");
    const about = (id: string): string =>
      plugins.stdout.split(/\n\s*\n/).find((text) => new RegExp(`^ID:\\s+${id}$`, "m").test(text)) ?? "";
    expect(about("native")).toMatch(/Platforms:\s+linux\/arm64/);
    expect(about("native")).toMatch(new RegExp(`address\\s+${backend.socket}`));
    expect(about("native")).toMatch(/root\s+\/somewhere/);
    expect(about("native")).toMatch(/Capabilities:\s+remap-ids/);
    expect(about("far")).not.toContain("Error");

    const imported = await ctr("images", "import", "--local", "--snapshotter", "native", archive);
    expect(imported).toMatchObject({ code: 0 });
    const run = (id: string) =>
      ctr(
        "run",
        "--rm",
        "--snapshotter",
        "native",
        "docker.io/library/box:1",
        id,
        "/bin/sh",
        "-c",
        "echo $0",
      );
    expect(await run("one")).toMatchObject({ code: 0, stdout: "/bin/sh\n" });
    // The layer, and the container's until a collection.
    expect(readdirSync(join(rootOf(backend, "native"), "snapshots"))).toHaveLength(2);
    expect(existsSync(rootOf(daemon, "native"))).toBe(false);

    await backend.kill();
    const refused = await run("two");
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`connection to ${backend.socket}`);
    backend = await startDaemon("bunkerd", { folder: backend.folder, config: WITHOUT_COLLECTION });
    expect(await run("three")).toMatchObject({ code: 0 });
    const listed = await ctr("snapshots", "--snapshotter", "native", "ls");
    expect(listed.stdout.match(/Committed/g)).toHaveLength(1);
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  } finally {
    await backend.stop();
  }
});
