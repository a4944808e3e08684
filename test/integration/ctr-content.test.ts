/**
 * `ctr content` and `ctr images` of both Debian releases, as far as they need no registry and no snapshotter: each script runs on containerd
 * 2.1 and on bunkerd, and what ctr prints must be the same.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CTR_VERSIONS } from "../support/commands.ts";
import {
  COLLECTION_WHEN_ASKED,
  containerdProgram,
  type Daemon,
  daemonKinds,
  startDaemon,
  type Version,
} from "../support/daemons.ts";
import { type Finished, output, run } from "../support/processes.ts";

/** ctr's arguments, the file that it reads from, and what its output must show on every daemon. */
type Step = readonly [args: string, shows?: RegExp];

const sha256 = (text: string | Uint8Array): string =>
  `sha256:${createHash("sha256").update(text).digest("hex")}`;

const FILES: Readonly<Record<string, string>> = { "hello.txt": "hello\n", "other.txt": "other\n" };
const CONFIG = JSON.stringify({
  architecture: process.arch === "x64" ? "amd64" : process.arch,
  os: "linux",
  rootfs: { type: "layers", diff_ids: [sha256("layer")] },
});

const NAMES: Readonly<Record<string, string>> = {
  "<HELLO>": sha256("hello\n"),
  "<OTHER>": sha256("other\n"),
  "<CONFIG>": sha256(CONFIG),
  "<NONE>": `sha256:${"a".repeat(64)}`,
};

const CONTENT: readonly Step[] = [
  ["content ls", /DIGEST/],
  ["content active", /REF/],
  ["content ingest one < hello.txt", /code 0/],
  ["content ls", /<HELLO>/],
  ["content ls -q", /<HELLO>/],
  ["content ingest one < hello.txt", /code/],
  ["content ingest --expected-digest <HELLO> --expected-size 6 two < hello.txt", /code/],
  ["content ingest --expected-size 7 three < hello.txt", /code 1/],
  ["content active", /three/],
  ["content ingest --expected-digest <OTHER> four < hello.txt", /code 1/],
  ["content ingest three < other.txt", /code/],
  ["content ingest five < other.txt", /code 0/],
  ["content ls -q", /<OTHER>/],
  ["content get <HELLO>", /^hello$/m],
  ["content get sha256:nonsense", /code 1/],
  ["content get <NONE>", /not found/],
  ["content get ../../etc/passwd", /code 1/],
  ["content label <HELLO> colour=red size=big", /colour=red/],
  ["content ls labels.colour==red", /size=big/],
  ["content label <HELLO> colour=", /size=big/],
  ["content ls", /size=big/],
  ["content ls digest==<HELLO>", /<HELLO>/],
  ["content ls digest=x", /invalid argument/],
  ["content label <NONE> a=b", /not found/],
  ["-n other content ls", /DIGEST/],
  ["-n other content get <HELLO>", /not found/],
  ["-n other content ingest --expected-digest <HELLO> --expected-size 6 mine < hello.txt", /code 0/],
  ["-n other content get <HELLO>", /^hello$/m],
  ["-n other content rm <HELLO>", /<HELLO>/],
  ["content get <HELLO>", /^hello$/m],
  ["content rm <HELLO> <OTHER>", /<OTHER>/],
  ["content rm <HELLO>", /code/],
  ["content rm nonsense", /code/],
  ["content ls", /DIGEST/],
  ["content prune references --dry", /code/],
  ["namespaces rm other", /code/],
];

const IMAGES: readonly Step[] = [
  ["images ls", /REF +TYPE +DIGEST/],
  ["images import --no-unpack <local> image.tar", /code 0/],
  ["images ls -q", /example.org\/tiny:1/],
  ["images ls", /application\/vnd.oci.image/],
  ["images ls name==example.org/tiny:1", /tiny/],
  ["images ls name~=nothing", /REF/],
  ["images ls name=x", /invalid argument/],
  // Not all of the content: what is unreferenced goes at a moment that containerd's garbage collection chooses.
  [
    'content ls labels."containerd.io/gc.ref.content.config"==<CONFIG>',
    /containerd.io\/gc.ref.content.config=<CONFIG>/,
  ],
  ["content ls -q digest==<CONFIG>", /<CONFIG>/],
  ["content get <CONFIG>", /architecture/],
  ["images label example.org/tiny:1 colour=red", /colour=red/],
  ["images ls", /colour=red/],
  ["images label example.org/tiny:1 colour=", /code 0/],
  ["images label missing a=b", /not found/],
  ["images tag <local> example.org/tiny:1 example.org/tiny:2", /tiny:2/],
  ["images tag <local> example.org/tiny:1 example.org/tiny:2", /already exists/],
  ["images tag <local> --force example.org/tiny:1 example.org/tiny:2", /tiny:2/],
  ["images tag <local> missing other", /not found/],
  ["images ls -q", /tiny:2/],
  ["images export <local> out.tar example.org/tiny:1", /code 0/],
  ["images rm example.org/tiny:1 example.org/tiny:2", /tiny:2/],
  ["images rm missing", /code/],
  ["images import --no-unpack <local> out.tar", /code 0/],
  ["images ls -q", /tiny:1/],
  ["images rm example.org/tiny:1", /tiny:1/],
  ["images ls", /REF/],
];

/** An OCI archive of one image whose layer nobody unpacks. */
async function writeImage(folder: string): Promise<void> {
  const layout = join(folder, "layout");
  mkdirSync(join(layout, "blobs/sha256"), { recursive: true });
  const add = (mediaType: string, text: string) => {
    const digest = sha256(text);
    writeFileSync(join(layout, "blobs/sha256", digest.slice("sha256:".length)), text);
    return { mediaType, digest, size: Buffer.byteLength(text) };
  };
  const type = (name: string): string => `application/vnd.oci.image.${name}`;
  const config = add(type("config.v1+json"), CONFIG);
  const layers = [add(type("layer.v1.tar"), "layer")];
  const mediaType = type("manifest.v1+json");
  const manifest = add(mediaType, JSON.stringify({ schemaVersion: 2, mediaType, config, layers }));
  const annotations = {
    "io.containerd.image.name": "example.org/tiny:1",
    "org.opencontainers.image.ref.name": "1",
  };
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const index = {
    schemaVersion: 2,
    mediaType: type("index.v1+json"),
    manifests: [{ ...manifest, annotations }],
  };
  writeFileSync(join(layout, "index.json"), JSON.stringify(index));
  await output(["tar", "-cf", join(folder, "image.tar"), "-C", layout, "oci-layout", "index.json", "blobs"]);
}

async function ctr(version: Version, daemon: Daemon, line: string): Promise<Finished> {
  const [args = "", input] = line.split(" < ");
  const program = await containerdProgram(version, "ctr");
  const stdin = input === undefined ? {} : { stdin: FILES[input] ?? "" };
  const env = { TMPDIR: daemon.folder };
  return run([program, "--address", daemon.socket, ...args.split(" ")], {
    cwd: daemon.folder,
    env,
    ...stdin,
  });
}

/** Folders, times, ages and the width of columns differ from run to run; labels' order is a Go map's. */
function normalise({ code, stdout, stderr }: Finished, daemon: Daemon): string {
  let text = `code ${code}\n---\n${stdout}\n${stderr}`.replaceAll(daemon.folder, "<folder>");
  for (const [name, digest] of Object.entries(NAMES)) text = text.replaceAll(digest, name);
  return text
    .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| \+0000 UTC)/g, "<time>")
    .replaceAll(/Less than a second|\d+ seconds?|About a minute/g, "<age>")
    .replaceAll(/locked for \S+ \(since [^)]*\)/g, "locked for <age>")
    .replaceAll(/elapsed: *[\d.]+ ?m?s *total: .*/g, "elapsed")
    .replaceAll(/\(\d+(?:\.\d+)?[mµ]?s\)|took [\d.]+m?s/g, "<took>")
    .replaceAll(/[\t ]+/g, " ")
    .replaceAll(/\S+=\S*(?:,\S+=\S*)+/g, (list) => list.split(",").sort().join(","));
}

describe.each(CTR_VERSIONS.map((version) => [version] as const))("ctr %s", (version) => {
  const daemons: Daemon[] = [];
  beforeAll(async () => {
    for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
      const daemon = await startDaemon(kind, { config: COLLECTION_WHEN_ASKED });
      await writeImage(daemon.folder);
      daemons.push(daemon);
    }
  });
  afterAll(async () => {
    for (const daemon of daemons) await daemon.stop();
  });

  test.each([
    ["content", CONTENT],
    ["images", IMAGES],
  ] as const)(
    "%s: prints what it prints with containerd",
    async (_name, script) => {
      const transcripts: string[][] = [];
      for (const daemon of daemons) {
        const printed: string[] = [];
        for (const [line, shows] of script) {
          // 2.1 asks the Transfer service unless it is told not to.
          let args = line.replace("<local> ", version === "2.1" ? "--local " : "");
          for (const [name, digest] of Object.entries(NAMES)) args = args.replaceAll(name, digest);
          const text = normalise(await ctr(version, daemon, args), daemon);
          printed.push(`$ ctr ${line}\n${text}`);
          if (shows !== undefined) expect(text, `ctr ${line} on ${daemon.kind}`).toMatch(shows);
        }
        transcripts.push(printed);
      }
      for (const transcript of transcripts.slice(1)) expect(transcript).toEqual(transcripts[0] ?? []);
    },
    60_000,
  );
});
