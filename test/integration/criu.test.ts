/**
 * Checkpoints by a real CRIU, sid's, on containerd 2.1 and on bunkerd: a restored process goes on where it was. `checkpoints.test.ts` has what
 * needs none.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Layout } from "../support/archives.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace, succeeding, until } from "../support/containers.ts";
import { installCriu } from "../support/criu.ts";
import { COLLECTION_WHEN_ASKED, daemonKinds, startDaemon } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { tar } from "../support/tar.ts";

const folder = temporaryFolder();
const { problem } = await installCriu(folder);
if (problem !== undefined) process.stderr.write(`skipped: checkpoints by criu: ${problem}\n`);
const env = { PATH: process.env["PATH"] ?? "" };
let archive: Buffer;

beforeAll(async () => {
  // The shim's runc looks for it in the daemon's PATH.
  process.env["PATH"] = `${folder}:${env.PATH}`;
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    ...["bin/", "dev/", "proc/", "sys/", "tmp/"].map((name) => ({ name, type: "5", mode: 0o755 })),
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...["sh", "sleep", "cat", "mv"].map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
  ]);
  const layout = new Layout();
  const image = layout.image([layer], "amd64");
  archive = layout.archive([{ ...image, annotations: { "io.containerd.image.name": "example.org/box:1" } }]);
});
afterAll(() => {
  Object.assign(process.env, env);
  endNamespaces();
  removeFolder(folder);
});

const kinds = daemonKinds("containerd-2.1", "bunkerd").map((kind) => [kind] as const);

test.if(problem === undefined).each(kinds)(
  "%s: what is restored goes on, and so does what was left running",
  async (kind) => {
    await using daemon = await startDaemon(kind, { config: COLLECTION_WHEN_ASKED });
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    const ok = succeeding(ctr);
    let execs = 0;
    const countOf = async (id: string): Promise<number> =>
      Number(await ok("tasks", "exec", "--exec-id", `count-${execs++}`, id, "/bin/cat", "/tmp/count"));
    writeFileSync(join(daemon.folder, "box.tar"), archive);
    await ok("images", "import", "--local", "box.tar");
    // The number is in its memory alone: the file is only written, and never seen half.
    const counts =
      "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done";
    await ok("run", "-d", "example.org/box:1", "web", "/bin/sh", "-c", counts);
    await until("it counts", async () => (await countOf("web")) > 20);
    await ok("containers", "checkpoint", "--task", "--rw", "--image", "web", "example.org/saved:1");
    await ok("containers", "restore", "--rw", "--live", "again", "example.org/saved:1");
    expect(await ok("tasks", "ls")).toMatch(/^again +\d+ +RUNNING$/m);
    for (const id of ["again", "web"]) {
      const before = await countOf(id);
      expect(before).toBeGreaterThan(20);
      await until(`${id} goes on`, async () => (await countOf(id)) > before);
    }

    expect(await ok("tasks", "checkpoint", "--exit", "again")).toStartWith("containerd.io/checkpoint/again:");
    await until("it has ended", async () => /^again +\d+ +STOPPED$/m.test(await ok("tasks", "ls")));
    for (const id of ["web", "again"]) {
      await ctr("tasks", "rm", "-f", id);
      await ok("containers", "rm", id);
    }
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  },
  60_000,
);
