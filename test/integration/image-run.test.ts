/** The whole way of `ctr`: an image from an archive into content, images and snapshots, and a container of it by the real shim and runc. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { CTR_VERSIONS } from "../support/commands.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace } from "../support/containers.ts";
import { daemonKinds, startDaemon } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { buildImage, tar } from "../support/tar.ts";

const IMAGE = "docker.io/library/box:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const folder = temporaryFolder();
const archive = join(folder, "box.tar");
const cases = daemonKinds("containerd-2.1", "bunkerd").flatMap((kind) =>
  CTR_VERSIONS.map((version) => [kind, version] as const),
);

beforeAll(async () => {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const base = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    { name: "bin/sh", type: "2", link: "busybox" },
    { name: "bin/cat", type: "2", link: "busybox" },
    { name: "greeting", data: "from the lower layer\n" },
    { name: "gone", data: "x" },
  ]);
  const upper = tar([
    { name: "greeting", data: "from the upper layer\n" },
    { name: ".wh.gone", data: "" },
  ]);
  const pack = (layer: Buffer) => ({ blob: gzipSync(layer), mediaType: LAYER });
  writeFileSync(archive, buildImage(IMAGE, [base, upper], pack).archive);
});

afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

describe.each(cases)("%s, ctr %s", (kind, version) => {
  test("an imported image runs, and its snapshot goes with its container", async () => {
    await using daemon = await startDaemon(kind);
    const namespace = newNamespace();
    const ctr = ctrIn(version, daemon, namespace);
    const imported = await ctr("images", "import", ...(version === "2.1" ? ["--local"] : []), archive);
    expect(imported.code).toBe(0);
    const script =
      "cat /greeting; test -e /gone && echo still there; echo written > /new && cat /new; exit 7";
    const ran = await ctr("run", "--rm", IMAGE, "demo", "/bin/sh", "-c", script);
    expect({ code: ran.code, stdout: ran.stdout }).toEqual({
      code: 7,
      stdout: "from the upper layer\nwritten\n",
    });
    const snapshots = await ctr("snapshots", "ls");
    expect(snapshots.stdout).not.toContain("demo");
    expect(snapshots.stdout.match(/Committed/g)).toHaveLength(2);
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });
});
