/** One database, passed between bunkerd and containerd: each reads what the other wrote, after random changes of both. */
import { expect, test } from "bun:test";
import { ctr } from "../support/commands.ts";
import { type Daemon, type DaemonKind, daemonKinds, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { changeAtRandom, contentsOf } from "../support/workload.ts";

const CHANGES = 250;

async function expectClean(database: string): Promise<void> {
  if (!daemonKinds("bunkerd").includes("bunkerd")) return;
  const checked = await checkDatabase(database);
  expect(checked, `bunkerd db check ${database}`).toMatchObject({ code: 0 });
}

function withoutSandboxes(contents: object): object {
  return { ...contents, sandboxes: undefined };
}

/** Each daemon in turn must tell what the one before told last, then changes it. */
async function passOn(kinds: readonly DaemonKind[], seed: number): Promise<void> {
  const random = randomFrom(seed);
  let before: { kind: DaemonKind; contents: object } | undefined;
  let daemon: Daemon | undefined;
  try {
    for (const kind of kinds) {
      daemon = await startDaemon(kind, daemon === undefined ? {} : { folder: daemon.folder });
      const found = await contentsOf(daemon);
      if (before !== undefined) {
        const old = [kind, before.kind].includes("containerd-1.6");
        const [now, then] = old ? [found, before.contents].map(withoutSandboxes) : [found, before.contents];
        expect(now, `what ${kind} finds after ${before.kind}`).toEqual(then ?? {});
      }
      await changeAtRandom(daemon, random, CHANGES);
      before = { kind, contents: await contentsOf(daemon) };
      const listed = await ctr("1.6", daemon, "--namespace", "moby", "containers", "ls", "-q");
      const ids: readonly string[] = JSON.stringify(before.contents).match(/"c\d+"/g) ?? [];
      expect(
        listed.stdout
          .trim()
          .split("\n")
          .every((id) => ids.includes(`"${id}"`)),
      ).toBe(true);
      expect(await daemon.halt()).toBe(0);
      await expectClean(daemon.database);
    }
  } finally {
    await daemon?.stop();
  }
}

const ROUTES: readonly (readonly DaemonKind[])[] = [
  ["containerd-2.1", "bunkerd", "containerd-2.1", "bunkerd"],
  ["bunkerd", "containerd-2.1", "bunkerd"],
  ["containerd-1.6", "bunkerd", "containerd-2.1", "bunkerd"],
  ["bunkerd", "containerd-1.6", "bunkerd"],
  ["containerd-2.1", "bunkerd", "containerd-1.6", "bunkerd"],
];

test.each(ROUTES.map((route) => [daemonKinds(...route).join(" -> "), route] as const))(
  "%s",
  async (_name, route) => {
    const seed = testSeed();
    try {
      await passOn(daemonKinds(...route), seed);
    } catch (error) {
      process.stdout.write(`BUNKERD_TEST_SEED=${seed}\n`);
      throw error;
    }
  },
);
