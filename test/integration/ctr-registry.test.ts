/**
 * Images from and to a registry, Debian's: pull, push, fetch, check, usage, mount, run, by ctr 1.6 and 2.1, the latter by the daemon's Transfer service as well as
 * by itself. What it prints is on containerd 2.1 and on bunkerd the same, and so is `meta.db` in the end.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { mountPointsBelow } from "../../src/linux/mountinfo.ts";
import { databaseLines } from "../support/bucket-lines.ts";
import { ctr } from "../support/commands.ts";
import { endNamespaces, leftovers, newNamespace } from "../support/containers.ts";
import { transcript } from "../support/ctr-output.ts";
import { type Daemon, daemonKinds, inOrder, startDaemon, type Version } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { buildImage, tar } from "../support/tar.ts";

const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const folder = temporaryFolder();
let registry: Registry;

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const base = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    { name: "bin/sh", type: "2", link: "busybox" },
    { name: "bin/cat", type: "2", link: "busybox" },
    { name: "greeting", data: "from the lower layer\n" },
  ]);
  const upper = tar([{ name: "greeting", data: "from the upper layer\n" }]);
  const pack = (layer: Buffer) => ({ blob: gzipSync(layer), mediaType: LAYER });
  await pushImage(registry, "library/box", "1", buildImage("box", [base, upper], pack));
});

afterAll(async () => {
  await registry.stop();
  removeFolder(folder);
  endNamespaces();
});

type Step = readonly [args: string, shows?: RegExp];

/** `IMAGE` is the registry's, `HOST` the registry; `<local>` is `--local` for who pulls by itself. */
const SCRIPT: readonly Step[] = [
  ["images pull <local> --plain-http IMAGE", /code 0/],
  ["images ls", /library\/box:1/],
  ["images check", /complete/],
  ["content ls", /distribution.source/],
  ["snapshots ls", /Committed/],
  ["images pull <local> --plain-http IMAGE", /code 0/],
  ["images label IMAGE colour=red", /colour=red/],
  ["images tag <local> IMAGE HOST/library/copy:2", /copy:2/],
  ["images push <local> --plain-http HOST/library/copy:2", /code 0/],
  ["images push <local> --plain-http HOST/library/copy:2", /code 0/],
  ["images rm HOST/library/copy:2", /copy:2/],
  ["images pull <local> --plain-http HOST/library/copy:2", /code 0/],
  ["images pull <local> --plain-http HOST/library/none:1", /code 1/],
  [`images pull <local> --plain-http IMAGE@sha256:${"0".repeat(64)}`, /code 1/],
  ["images push <local> --plain-http HOST/library/nothing:1", /not found/],
  ["content fetch --plain-http HOST/library/copy:2", /code 0/],
  ["images mount IMAGE mounted", /mounted/],
  ["images unmount --rm mounted", /mounted/],
  ["run --rm IMAGE demo /bin/sh -c cat</greeting;exit\t7", /from the upper layer/],
  ["images rm HOST/library/copy:2 IMAGE", /box:1/],
  ["images ls", /REF/],
  ["leases ls", /ID/],
];

/** Where the daemon itself tells of a failure, its words are its own; of progress only the end is compared. */
function comparable(line: string, text: string): string {
  if (/none:1|sha256:0000/.test(line)) return text.split("\n", 1)[0] ?? "";
  if (!/ (?:pull|push|fetch) /.test(` ${line}`)) return text;
  return text.replace(/---\n[\s\S]*?\n\n/, "---\n").replace(/---\n[\s\S]*done:.*\n/, "---\ndone\n");
}

async function runScript(
  daemon: Daemon,
  version: Version,
  local: boolean,
  namespace: string,
): Promise<string[]> {
  const image = `${registry.host}/library/box:1`;
  const printed: string[] = [];
  for (const [line, shows] of SCRIPT) {
    const args = line
      .replace("<local> ", local && version === "2.1" ? "--local " : "")
      .split(" ")
      .map((word) => word.replace("IMAGE", image).replace("HOST", registry.host).replace("\t", " "));
    const text = transcript(await ctr(version, daemon, "-n", namespace, ...args), daemon);
    printed.push(`$ ctr ${line}\n${comparable(line, text)}`);
    if (shows !== undefined) expect(text, `ctr ${line} on ${daemon.kind}`).toMatch(shows);
  }
  return printed;
}

const WAYS = [
  ["1.6", true],
  ["2.1", true],
  ["2.1", false],
] as const;

describe.each(WAYS)("ctr %s, by itself: %p", (version, local) => {
  test("pull, push, check, mount, run: prints and leaves what it does with containerd", async () => {
    const transcripts: string[][] = [];
    const dumps: string[][] = [];
    const namespace = newNamespace();
    for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
      await using daemon = await startDaemon(kind, { config: inOrder(kind) });
      mkdirSync(join(daemon.folder, "mounted"));
      transcripts.push(await runScript(daemon, version, local, namespace));
      expect(leftovers(daemon.folder, namespace)).toEqual([]);
      expect(mountPointsBelow(daemon.folder)).toEqual([]);
      await daemon.halt();
      dumps.push(await databaseLines(daemon.database));
    }
    for (const other of transcripts.slice(1)) expect(other).toEqual(transcripts[0] ?? []);
    for (const dump of dumps) expect(dump.length).toBeGreaterThan(10);
    for (const other of dumps.slice(1)) expect(other).toEqual(dumps[0] ?? []);
  }, 60_000);
});
