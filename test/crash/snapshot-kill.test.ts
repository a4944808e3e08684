/**
 * The daemon is killed at every failpoint that making, committing and removing snapshots passes, at each visit. Afterwards each
 * snapshot is as it was before or as it was to be, has its folder, and no folder or backend snapshot is left over.
 */
import { expect, test } from "bun:test";
import { copyFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Info, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Db } from "../../src/bolt/db.ts";
import { snapshotIds, walkFilter, walkInfo } from "../../src/snapshots/storage.ts";
import { type Daemon, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";

const FAILPOINTS = [
  "snapshots.filled",
  "snapshots.placed",
  "snapshots.created",
  "snapshots.beforeCommit",
  "snapshots.committed",
  "snapshots.removed",
  "snapshots.setAside",
  "metadata.snapshotPrepared",
  "metadata.snapshotRecorded",
  "metadata.snapshotUpdated",
  "metadata.snapshotCommitted",
];
/** One visit of each is tried in the short run, every one in the long. */
const VISITS = process.env["BUNKERD_TEST_LONG"] === undefined ? 2 : 6;
const options = inNamespace("crash");

const KIND_NAMES: Readonly<Record<number, string>> = { 1: "VIEW", 2: "ACTIVE", 3: "COMMITTED" };

type State = Readonly<Record<string, string>>;
type Client = ReturnType<typeof clientOf>;

interface Step {
  readonly run: (client: Client, snapshotter: string) => Promise<unknown>;
  /** Kind and parent by key, once the step is done. */
  readonly after: State;
}

const clientOf = (connection: Connection) => connection.client(Snapshots);

const STEPS: readonly Step[] = [
  {
    run: (client, snapshotter) => client.prepare({ snapshotter, key: "base-a", parent: "" }, options),
    after: { "base-a": "ACTIVE " },
  },
  {
    run: (client, snapshotter) => client.commit({ snapshotter, key: "base-a", name: "base" }, options),
    after: { base: "COMMITTED " },
  },
  {
    run: (client, snapshotter) => client.prepare({ snapshotter, key: "top-a", parent: "base" }, options),
    after: { base: "COMMITTED ", "top-a": "ACTIVE base" },
  },
  {
    run: (client, snapshotter) =>
      client.update(
        { snapshotter, info: { name: "top-a", labels: { "containerd.io/snapshot/l": "1" } } },
        options,
      ),
    after: { base: "COMMITTED ", "top-a": "ACTIVE base" },
  },
  {
    run: (client, snapshotter) => client.view({ snapshotter, key: "look", parent: "base" }, options),
    after: { base: "COMMITTED ", "top-a": "ACTIVE base", look: "VIEW base" },
  },
  {
    run: (client, snapshotter) => client.remove({ snapshotter, key: "look" }, options),
    after: { base: "COMMITTED ", "top-a": "ACTIVE base" },
  },
  {
    run: (client, snapshotter) => client.commit({ snapshotter, key: "top-a", name: "top" }, options),
    after: { base: "COMMITTED ", top: "COMMITTED base" },
  },
  {
    run: (client, snapshotter) => client.prepare({ snapshotter, key: "run", parent: "top" }, options),
    after: { base: "COMMITTED ", top: "COMMITTED base", run: "ACTIVE top" },
  },
  {
    run: async (client, snapshotter) => {
      await client.remove({ snapshotter, key: "run" }, options);
      await client.cleanup({ snapshotter }, options);
    },
    after: { base: "COMMITTED ", top: "COMMITTED base" },
  },
];

async function stateOf(client: Client, snapshotter: string): Promise<State> {
  const found: Info[] = [];
  for await (const { info } of client.list({ snapshotter }, options)) found.push(...info);
  return Object.fromEntries(found.map(({ name, kind, parent }) => [name, `${KIND_NAMES[kind]} ${parent}`]));
}

/** Every snapshot that can be mounted has the folders that its mounts name. */
async function checkFolders(client: Client, snapshotter: string, state: State): Promise<void> {
  for (const [key, told] of Object.entries(state)) {
    await client.usage({ snapshotter, key }, options);
    if (told.startsWith("COMMITTED")) continue;
    for (const { source, type, options: words } of (await client.mounts({ snapshotter, key }, options))
      .mounts) {
      const folders = type === "bind" ? [source] : words.filter((word) => /dir=/.test(word));
      for (const folder of folders.flatMap((word) => word.replace(/^\w+dir=/, "").split(":"))) {
        expect(statSync(folder).isDirectory(), `${key}: ${folder}`).toBe(true);
      }
    }
  }
}

/** What the stopped daemon's snapshotter knows must be what namespaces know, and every folder belong to one. */
async function checkNothingLeft(daemon: Daemon, snapshotter: string, state: State): Promise<void> {
  const root = join(daemon.root, `io.containerd.snapshotter.v1.${snapshotter}`);
  const file = join(root, "metadata.db");
  expect(await checkDatabase(file)).toMatchObject({ code: 0 });
  const copy = join(daemon.folder, "copy.db");
  copyFileSync(file, copy);
  const db = Db.open(copy);
  const names: string[] = [];
  const ids = db.view((tx) => {
    walkInfo(tx, walkFilter([]), ({ name }) => void names.push(name.replace(/^crash\/\d+\//, "")));
    return snapshotIds(tx);
  });
  await db.close();
  expect(names.sort()).toEqual(Object.keys(state).sort());
  expect(readdirSync(join(root, "snapshots")).filter((name) => !ids.has(name))).toEqual([]);
}

/** Plays the steps until the daemon dies; how many were answered, or undefined if it lived through all. */
async function playUntilKilled(daemon: Daemon, snapshotter: string): Promise<number | undefined> {
  await using connection = connectGrpc(daemon.socket);
  for (const [index, { run, after }] of STEPS.entries()) {
    try {
      await run(clientOf(connection), snapshotter);
      expect(await stateOf(clientOf(connection), snapshotter)).toEqual(after);
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error;
      await daemon.exited;
      return index;
    }
  }
  return undefined;
}

async function killAt(snapshotter: string, failpoint: string, visit: number): Promise<boolean> {
  process.env["BUNKERD_FAILPOINTS"] = `${failpoint}=kill@${visit}`;
  let daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION }).finally(() => {
    delete process.env["BUNKERD_FAILPOINTS"];
  });
  try {
    const reached = await playUntilKilled(daemon, snapshotter);
    if (reached === undefined) return false;
    daemon = await startDaemon("bunkerd", { folder: daemon.folder, config: WITHOUT_COLLECTION });
    await using connection = connectGrpc(daemon.socket);
    const client = clientOf(connection);
    const before = STEPS[reached - 1]?.after ?? {};
    const found = await stateOf(client, snapshotter);
    expect([before, STEPS[reached]?.after ?? {}]).toContainEqual(found);
    await checkFolders(client, snapshotter, found);
    await finish(client, snapshotter, reached);
    const last = STEPS.at(-1)?.after ?? {};
    const state = await stateOf(client, snapshotter);
    expect(state).toEqual(last);
    await checkFolders(client, snapshotter, state);
    await client.cleanup({ snapshotter }, options);
    expect(await daemon.halt()).toBe(0);
    await checkNothingLeft(daemon, snapshotter, state);
    return true;
  } finally {
    await daemon.stop();
  }
}

/** The step that was cut short, once more, and those after it. */
async function finish(client: Client, snapshotter: string, reached: number): Promise<void> {
  for (const [index, { run }] of STEPS.slice(reached).entries()) {
    try {
      await run(client, snapshotter);
    } catch (error) {
      const done = error instanceof ConnectError && [Code.AlreadyExists, Code.NotFound].includes(error.code);
      if (index > 0 || !done) throw error;
    }
  }
}

for (const snapshotter of ["overlayfs", "native"]) {
  test.each(FAILPOINTS.map((name) => [name] as const))(`${snapshotter}: killed at %s`, async (failpoint) => {
    let kills = 0;
    // Both snapshotters are swept when the daemon starts.
    const passed = failpoint === "snapshots.setAside" ? 2 : 0;
    for (let visit = 1; visit <= VISITS; visit++) {
      if (!(await killAt(snapshotter, failpoint, passed + visit))) break;
      kills++;
    }
    expect(kills).toBeGreaterThan(0);
  });
}
