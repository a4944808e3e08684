/** `ctr install`: programs of an image beside the daemon, which finds a runtime among them. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  ctrIn,
  endNamespaces,
  leftovers,
  makeRootfs,
  newNamespace,
  succeeding,
} from "../support/containers.ts";
import { containerdProgram, daemonKinds, startDaemon } from "../support/daemons.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { buildImage, tar } from "../support/tar.ts";

const IMAGE = "docker.io/library/installed:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const folder = temporaryFolder();
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

test.each(daemonKinds("containerd-2.1", "bunkerd"))("%s installs a shim and runs it", async (kind) => {
  const shim = await containerdProgram("2.1", "containerd-shim-runc-v2");
  const layer = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/containerd-shim-installed-v1", mode: 0o755, data: `#!/bin/sh\nexec ${shim} "$@"\n` },
    { name: "lib/", type: "5", mode: 0o755 },
    { name: "lib/libinstalled.so", data: "" },
    { name: "etc/", type: "5", mode: 0o755 },
    { name: "etc/other", data: "" },
  ]);
  const archive = join(folder, `${kind}.tar`);
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes), mediaType: LAYER });
  writeFileSync(archive, buildImage(IMAGE, [layer], pack).archive);

  await using daemon = await startDaemon(kind, { disabledPlugins: ["io.containerd.grpc.v1.cri"] });
  const namespace = newNamespace();
  const ctr = ctrIn("2.1", daemon, namespace);
  const ok = succeeding(ctr);
  const installed = (name: string): string => join(daemon.folder, "opt", name);
  await ok("images", "import", "--local", archive);
  await ok("install", "--libs", IMAGE);
  expect(readFileSync(installed("bin/containerd-shim-installed-v1"), "utf8")).toContain(shim);
  expect(existsSync(installed("lib/libinstalled.so"))).toBe(true);
  expect(existsSync(installed("etc"))).toBe(false);
  const again = await ctr("install", IMAGE);
  expect(again.stderr).toContain("cannot replace bin/containerd-shim-installed-v1");

  const rootfs = await makeRootfs(folder + kind);
  const words = ["run", "--rm", "--runtime", "io.containerd.installed.v1", "--rootfs", rootfs, "a"];
  expect(await ok(...words, "/bin/echo", "by the installed one")).toBe("by the installed one\n");
  expect(leftovers(daemon.folder, namespace)).toEqual([]);
  removeFolder(folder + kind);
});
