/** `ctr snapshots` of both Debian releases: each script runs on containerd 2.1 and on bunkerd, and prints the same. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { CTR_VERSIONS, ctr } from "../support/commands.ts";
import { type Daemon, daemonKinds, startDaemon, type Version } from "../support/daemons.ts";
import type { Finished } from "../support/processes.ts";

/** ctr's arguments, and what its output must show on every daemon. */
type Step = readonly [args: string, shows?: RegExp];

/** Without a lease nothing here would outlive containerd's next collection of garbage. */
const CONFIG = `[plugins."io.containerd.gc.v1.scheduler"]
mutation_threshold = 0
deletion_threshold = 0
startup_delay = "1h"`;

function scriptOf(snapshotter: string): readonly Step[] {
  const s = `snapshots --snapshotter ${snapshotter}`;
  return [
    [`${s} ls`, /KEY +PARENT +KIND/],
    [`${s} prepare work`, /code 0/],
    [`${s} prepare work`, /already exists/],
    [`${s} prepare --target /mnt other`, /mount -t bind/],
    [`${s} mounts /mnt work`, /mount -t bind/],
    [`${s} ls`, /work +Active/],
    [`${s} info work`, /"Kind": "Active"/],
    [`${s} info missing`, /snapshot missing does not exist: not found/],
    [`${s} usage work`, /KEY +SIZE +INODES/],
    [`${s} usage -b work`, /work +\d+ +1/],
    [`${s} commit base work`, /code 0/],
    [`${s} commit base other`, /already exists/],
    [`${s} info base`, /"Kind": "Committed"/],
    [`${s} mounts /mnt base`, /not active or view/],
    [`${s} prepare top-work base`, /code 0/],
    [`${s} commit top top-work`, /code 0/],
    [`${s} commit top2 missing`, /not found/],
    [`${s} view --target /mnt look top`, /mount -t/],
    [`${s} view look2 base`, /code 0/],
    [`${s} view look3 missing`, /parent snapshot missing does not exist/],
    [`${s} prepare x look`, /not committed/],
    [`${s} mounts /mnt look`, /mount -t/],
    [`${s} tree`, /base/],
    [`${s} label base colour=red size=big`, /colour=red/],
    [`${s} info base`, /"colour": "red"/],
    [`${s} label base colour=`, /size=big/],
    [`${s} label missing a=b`, /not found/],
    [`${s} usage`, /base/],
    [`${s} ls`, /top +base +Committed/],
    [`${s} rm base`, /cannot remove snapshot with child/],
    [`${s} rm look look2 top`, /code 0/],
    [`${s} rm look`, /not found/],
    [`${s} rm base other`, /code 0/],
    [`${s} ls`, /KEY +PARENT +KIND/],
    [`-n elsewhere ${s} prepare ..`, /code 0/],
    [`-n elsewhere ${s} ls`, /\.\. +Active/],
    [`${s} info ..`, /not found/],
    [`-n elsewhere ${s} rm ..`, /code 0/],
  ];
}

const SCRIPTS: Readonly<Record<string, readonly Step[]>> = {
  overlayfs: scriptOf("overlayfs"),
  native: scriptOf("native"),
  unknown: [
    ["snapshots --snapshotter nonsense ls", /snapshotter not loaded: nonsense: invalid argument/],
    ["snapshots --snapshotter nonsense prepare x", /snapshotter not loaded/],
    ["snapshots ls", /KEY +PARENT +KIND/],
  ],
};

/** What differs from run to run: the folder and times; the order of Go's maps, how wide columns are. */
function normalise({ code, stdout, stderr }: Finished, { folder }: Daemon): string {
  return `code ${code}\n---\n${stdout}\n${stderr}`
    .replaceAll(folder, "<folder>")
    .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| \+0000 UTC)/g, "<time>")
    .replaceAll(/(?<=\S) +/g, " ")
    .replaceAll(/^(?!mount)\S+=\S*(?:,\S+=\S*)+$/gm, (list) => list.split(",").sort().join(","));
}

async function play(version: Version, daemon: Daemon, script: readonly Step[]): Promise<string[]> {
  const printed: string[] = [];
  for (const [args, shows] of script) {
    const raw = await ctr(version, daemon, ...args.split(" "));
    if (shows !== undefined) {
      expect(`code ${raw.code}\n${raw.stdout}${raw.stderr}`, `ctr ${args} on ${daemon.kind}`).toMatch(shows);
    }
    printed.push(`$ ctr ${args}\n${normalise(raw, daemon)}`);
  }
  return printed;
}

describe.each(CTR_VERSIONS.map((version) => [version] as const))("ctr %s", (version) => {
  const daemons: Daemon[] = [];
  beforeAll(async () => {
    for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
      daemons.push(await startDaemon(kind, { config: CONFIG }));
    }
  });
  afterAll(async () => {
    for (const daemon of daemons) await daemon.stop();
  });

  test.each(Object.entries(SCRIPTS))("%s: prints what it prints with containerd", async (_name, script) => {
    const transcripts = [];
    for (const daemon of daemons) transcripts.push(await play(version, daemon, script));
    for (const transcript of transcripts.slice(1)) expect(transcript).toEqual(transcripts[0] ?? []);
  });

  test("plugins ls tells of the snapshotters", async () => {
    for (const daemon of daemons) {
      const { stdout } = await ctr(
        version,
        daemon,
        "plugins",
        "ls",
        "-d",
        "type==io.containerd.snapshotter.v1",
      );
      const [, told = ""] = /ID: +overlayfs\n([\s\S]*?)\n\n/.exec(`${stdout}\n\n`) ?? [];
      expect(told, daemon.kind).toMatch(/Platforms: +linux\/\w+/);
      expect(told, daemon.kind).toMatch(/root +\/\S+\/io.containerd.snapshotter.v1.overlayfs/);
      expect(told, daemon.kind).toMatch(/Capabilities: +.*remap-ids/);
    }
  });
});
