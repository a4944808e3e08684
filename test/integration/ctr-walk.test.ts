/** Every command and flag that `ctr` of Debian 12 and of sid has, on containerd 2.1 and on bunkerd: what it prints must be the same. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mountPointsBelow } from "../../src/linux/mountinfo.ts";
import { CTR_VERSIONS } from "../support/commands.ts";
import { endNamespaces, leftovers, makeRootfs } from "../support/containers.ts";
import { CONTENT, SNAPSHOTS } from "../support/ctr-walk/content.ts";
import {
  type Registries,
  startRegistries,
  type WalkImage,
  walkImage,
  writeFiles,
} from "../support/ctr-walk/fixtures.ts";
import { type Command, commandsOf } from "../support/ctr-walk/help.ts";
import { IMAGES, REGISTRIES } from "../support/ctr-walk/images.ts";
import { OTHERS, RUN, TASKS } from "../support/ctr-walk/run.ts";
import { play, type Script, stepsFor, walkerOf } from "../support/ctr-walk/walk.ts";
import { COLLECTION_WHEN_ASKED, type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

const folder = temporaryFolder();
const daemons: Daemon[] = [];
let image: WalkImage;
let registries: Registries;
let names: Readonly<Record<string, string>>;

beforeAll(async () => {
  image = await walkImage();
  registries = await startRegistries(folder, image);
  names = { ...image.names, ...registries.names, ROOTFS: await makeRootfs(folder), BOX: "example.org/box:1" };
  const config = COLLECTION_WHEN_ASKED;
  // Without CRI containerd has no sandbox controllers.
  const disabledPlugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"];
  for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
    const daemon = await startDaemon(kind, { config, ...(kind === "bunkerd" ? {} : { disabledPlugins }) });
    await writeFiles(daemon, image, names);
    daemons.push(daemon);
  }
}, 60_000);
afterAll(async () => {
  for (const daemon of daemons) await daemon.stop();
  await registries.stop();
  endNamespaces();
  removeFolder(folder);
}, 60_000);

const SCRIPTS: Readonly<Record<string, Script>> = {
  registries: REGISTRIES,
  images: IMAGES,
  content: CONTENT,
  snapshots: SNAPSHOTS,
  "run and tasks": [...RUN, ...TASKS],
  others: OTHERS,
};

describe.each(CTR_VERSIONS.map((version) => [version] as const))("ctr %s", (version) => {
  test.each(Object.entries(SCRIPTS))(
    "%s: prints what it prints with containerd",
    async (_name, script) => {
      const [reference = [], ...others] = await Promise.all(
        daemons.map(async (daemon) => {
          const walker = walkerOf(version, daemon, { ...names, REPO: `${version}-${daemon.kind}` });
          const printed = await play(walker, script);
          // containerd leaves a shim where a container could not be made.
          if (daemon.kind === "bunkerd") expect(leftovers(daemon.folder, walker.namespace)).toEqual([]);
          expect(mountPointsBelow(daemon.folder)).toEqual([]);
          return printed;
        }),
      );
      for (const other of others) expect(other).toEqual(reference);
    },
    60_000,
  );
});

/** Commands that other tests walk through, flag by flag, and those that ask no daemon for anything. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  "containers create": "ctr.test.ts; what its flags do to the spec is also what run's do",
  "containers label": "ctr.test.ts",
  events: "ctr.test.ts, tasks.test.ts",
  "snapshots info": "ctr-snapshots.test.ts",
  pprof: "Go's own profiles: bunkerd has its own, see docs/config.md",
  "shim delete": "ctr and the shim alone",
  "shim exec": "ctr and the shim alone",
  "shim start": "ctr and the shim alone",
  "shim shutdown": "ctr and the shim alone",
  "shim pprof": "ctr and the shim alone",
};

/** Flags without a step, with the reason. */
const NOT_WALKED: Readonly<Record<string, string>> = {
  "images unmount --label": "registries' and snapshotters' flags, which the command does not read",
};

/** Flags of one family, which ctr reads by the same function for each of its commands: one command shows what they do. */
const SHARED_FLAGS =
  /^--(?:skip-verify|plain-http|user|refresh|hosts-dir|tlscacert|tlscert|tlskey|http-dump|http-trace)$/;

describe.each(CTR_VERSIONS.map((version) => [version] as const))("ctr %s --help", (version) => {
  test("names no command and no flag that is not walked", async () => {
    const steps = Object.values(SCRIPTS).flatMap((script) => stepsFor(script, version).map(([line]) => line));
    const missing = (await commandsOf(version)).flatMap((command) => notWalked(command, steps));
    expect(missing).toEqual([]);
  }, 240_000);
});

function notWalked({ name, words, flags, below }: Command, steps: readonly string[]): string[] {
  if (Object.keys(ELSEWHERE).some((each) => name === each || name.startsWith(`${each} `))) return [];
  const path = words.map((spellings) => `(?:${spellings.join("|")})(?: -\\S+(?: \\S+)?)*? `).join("");
  const own = steps.filter((line) =>
    new RegExp(`(?:^|[ (])${path}`).test(`${line.replaceAll("<local>", "--local")} `),
  );
  if (own.length === 0 && below.length === 0) return [name];
  const isWalked = (spellings: readonly string[]): boolean => {
    const lines = spellings.some((flag) => SHARED_FLAGS.test(flag)) ? steps : own;
    const wanted = new RegExp(`(?:${spellings.join("|")})[ =]`);
    return lines.some((line) => wanted.test(`${line.replaceAll("<local>", "--local")} `));
  };
  return flags
    .filter((spellings) => !isWalked(spellings))
    .map(([first]) => `${name} ${first}`)
    .filter((each) => NOT_WALKED[each] === undefined);
}
