/**
 * `ctr images` of 2.1 as it is used, by the daemon's Transfer service: archives of every form in and out, tags; on containerd 2.1 and on bunkerd, what ctr
 * prints, the archives' bytes and `meta.db` must be the same.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { dockerArchive, Layout } from "../support/archives.ts";
import { databaseLines } from "../support/bucket-lines.ts";
import { ctr } from "../support/commands.ts";
import { watchEvents } from "../support/ctr-events.ts";
import { transcript } from "../support/ctr-output.ts";
import { type Daemon, daemonKinds, inOrder, startDaemon } from "../support/daemons.ts";
import { tar } from "../support/tar.ts";

const NAME = "io.containerd.image.name";
const TAG = "org.opencontainers.image.ref.name";

/** ctr's arguments, what its output must show on every daemon. */
type Step = readonly [args: string, shows?: RegExp];

const base = tar([
  { name: "etc/", type: "5", mode: 0o755 },
  { name: "etc/a", data: "a" },
]);
const upper = tar([
  { name: "etc/.wh.a", data: "" },
  { name: "etc/b", data: "b" },
]);

function writeArchives(folder: string): void {
  const write = (name: string, bytes: Uint8Array): void => writeFileSync(join(folder, name), bytes);
  const multi = new Layout();
  const index = multi.index({
    amd64: multi.image([base, upper], "amd64"),
    arm64: multi.image([base], "arm64"),
  });
  write(
    "multi.tar",
    multi.archive([{ ...index, annotations: { [NAME]: "example.org/multi:1", [TAG]: "1" } }]),
  );
  const tagged = new Layout();
  const image = tagged.image([base], "amd64");
  const other = tagged.image([upper], "amd64");
  write("tagged.tar", tagged.archive([{ ...image, annotations: { [TAG]: "latest" } }, other]));
  const foreign = new Layout();
  write(
    "foreign.tar",
    foreign.archive([{ ...foreign.image([base], "s390x"), annotations: { [NAME]: "x.org/f:1" } }]),
  );
  const docker = dockerArchive(["busybox:1", "example.org/other/box:2"], [base, upper, base]);
  write("docker.tar", docker);
  write("docker.tar.gz", gzipSync(docker));
  write("docker.tar.zst", zstdCompressSync(dockerArchive(["zstd:1"], [upper])));
  write("unnamed.tar", dockerArchive(null, [base]));
  write("badtag.tar", dockerArchive(["UPPER:1"], [base]));
  write("empty.tar", tar([{ name: "readme", data: "no image" }]));
  write("noise.tar", Buffer.alloc(4096, "noise"));
  write("cut.tar", docker.subarray(0, docker.length / 2));
  write("version.tar", tar([{ name: "oci-layout", data: '{"imageLayoutVersion":"9.0.0"}' }]));
  write("noindex.tar", tar([{ name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' }]));
  write(
    "noblob.tar",
    new Layout().archive([
      { ...new Layout().image([upper, upper], "amd64"), annotations: { [NAME]: "x.org/gone:1" } },
    ]),
  );
}

const SCRIPT: readonly Step[] = [
  ["images import multi.tar", /example.org\/multi:1/],
  ["images ls", /example.org\/multi:1 .*linux\/amd64/],
  ["images check", /complete/],
  ["images import --all-platforms --no-unpack multi.tar", /saved/],
  ["images import --platform linux/arm64 --no-unpack multi.tar", /saved/],
  ["images export multi-out.tar example.org/multi:1", /code 0/],
  ["images export --all-platforms all-out.tar example.org/multi:1", /code 0/],
  ["images export --platform linux/arm64 arm-out.tar example.org/multi:1", /code 0/],
  ["images export --platform linux/s390x none-out.tar example.org/multi:1", /no manifest found for platform/],
  ["images export --skip-manifest-json skip-out.tar example.org/multi:1", /code 0/],
  ["images export --skip-non-distributable non-out.tar example.org/multi:1", /code 0/],
  ["images import tagged.tar", /code 0/],
  ["images import --base-name example.org/named tagged.tar", /example.org\/named:latest/],
  ["images import --base-name example.org/digests --digests tagged.tar", /example.org\/digests@sha256/],
  [
    "images import --base-name example.org/skip --digests --skip-digest-for-named tagged.tar",
    /example.org\/skip/,
  ],
  ["images import --base-name example.org/none multi.tar", /code/],
  ["images import --index-name example.org/index:1 --label colour=red tagged.tar", /example.org\/index:1/],
  ["images ls", /colour=red/],
  ["images import foreign.tar", /code/],
  ["images import --no-unpack docker.tar", /docker.io\/library\/busybox:1/],
  ["images ls -q", /example.org\/other\/box:2/],
  ["images import docker.tar.gz", /saved/],
  ["images import docker.tar.zst", /docker.io\/library\/zstd:1/],
  ["images import --compress-blobs unnamed.tar", /code/],
  ["images import badtag.tar", /must be lowercase/],
  ["images import empty.tar", /unrecognized image format/],
  ["images import noise.tar", /code 1/],
  ["images import cut.tar", /code 1/],
  ["images import version.tar", /unsupported OCI version 9.0.0/],
  ["images import noindex.tar", /missing index.json/],
  ["images import noblob.tar", /not found/],
  ["images export both-out.tar docker.io/library/busybox:1 example.org/other/box:2", /code 0/],
  ["images export gone-out.tar example.org/nothing:1", /not found/],
  ["images tag docker.io/library/busybox:1 example.org/tag:1 example.org/tag:2", /example.org\/tag:2/],
  ["images tag docker.io/library/busybox:1 example.org/tag:1", /code/],
  ["images tag --force docker.io/library/busybox:1 example.org/tag:1", /example.org\/tag:1/],
  ["images tag example.org/nothing:1 example.org/tag:3", /not found/],
  ["images usage docker.io/library/busybox:1", /code/],
  ["images rm example.org/tag:2", /example.org\/tag:2/],
  ["images ls", /example.org\/tag:1/],
  ["snapshots ls", /Committed/],
  ["leases ls", /ID/],
  ["-n other images import docker.tar", /saved/],
];

const daemons: Daemon[] = [];
beforeAll(async () => {
  for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
    const daemon = await startDaemon(kind, { config: inOrder(kind) });
    writeArchives(daemon.folder);
    daemons.push(daemon);
  }
});
afterAll(async () => {
  for (const daemon of daemons) await daemon.stop();
});

/** Progress is shown as it comes, and containerd's last words may be cut off; of a broken archive each daemon has its own words. */
function comparable(line: string, text: string): string {
  if (/noise|cut/.test(line)) return text.split("\n", 1)[0] ?? "";
  return / images import |^images import /.test(line)
    ? text.replace(/---\n(?:[\s\S]*?\n)?\n/, "---\n")
    : text;
}

function hashOf(daemon: Daemon, name: string): string {
  const path = join(daemon.folder, name);
  return existsSync(path) ? createHash("sha256").update(readFileSync(path)).digest("hex") : "none";
}

/** ctr ends when the daemon says that it is done, and may not have written all of an archive by then: two blocks of zeros are its end. */
function isCutOff(daemon: Daemon, name: string): boolean {
  const path = join(daemon.folder, name);
  if (!existsSync(path)) return false;
  const archive = readFileSync(path);
  return archive.length < 1024 || archive.subarray(-1024).some((byte) => byte !== 0);
}

/** Events without times and names of the moment. */
function comparableEvent(line: string): string {
  return line.replace(/^.*? UTC /, "").replaceAll(/extract-\d+-\S{4}/g, "extract-<unique>");
}

test("archives in and out: ctr prints, writes and leaves what it does with containerd", async () => {
  const transcripts: string[][] = [];
  const events: string[][] = [];
  for (const daemon of daemons) {
    await using watched = await watchEvents(daemon);
    const printed: string[] = [];
    for (const [line, shows] of SCRIPT) {
      const out = /\S+-out\.tar/.exec(line)?.[0];
      let text = transcript(await ctr("2.1", daemon, ...line.split(" ")), daemon);
      const isCode0 = (): boolean => text.startsWith("code 0\n");
      for (let tries = 1; out !== undefined && isCode0() && isCutOff(daemon, out) && tries < 5; tries++)
        text = transcript(await ctr("2.1", daemon, ...line.split(" ")), daemon);
      printed.push(
        `$ ctr ${line}\n${comparable(line, text)}${out === undefined ? "" : `\n${hashOf(daemon, out)}`}`,
      );
      // What containerd said last may be missing: that its code is 0 has to do.
      const isSilent = daemon.kind !== "bunkerd" && /images import/.test(line) && isCode0();
      if (shows !== undefined && !isSilent) expect(text, `ctr ${line} on ${daemon.kind}`).toMatch(shows);
    }
    transcripts.push(printed);
    await watched.settled();
    events.push(watched.seen.map(comparableEvent));
  }
  for (const other of transcripts.slice(1)) expect(other).toEqual(transcripts[0] ?? []);
  for (const other of events.slice(1)) expect(other).toEqual(events[0] ?? []);

  const dumps: string[][] = [];
  for (const daemon of daemons) {
    await daemon.halt();
    dumps.push(await databaseLines(daemon.database));
  }
  for (const dump of dumps.slice(1)) expect(dump).toEqual(dumps[0] ?? []);
}, 120_000);
