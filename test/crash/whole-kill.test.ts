/**
 * `kill -9` of the daemon amid pulls, runs, execs and deletes by ctr, round after round. What runs goes on and takes commands; every lease that is left has time left; of the
 * rest nothing remains once the leases have gone: no shim, mount, cgroup, bundle, ingest, blob, snapshot. 100 rounds with BUNKERD_TEST_LONG=1.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { ctrCommand } from "../support/commands.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace, until } from "../support/containers.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { debianPackage } from "../support/debian.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { freePort } from "../support/ports.ts";
import { type Finished, removeFolder, start, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { buildImage, tar } from "../support/tar.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 4 : 100;
const LONGEST_ROUND_MS = 1200;
const PATIENCE_MS = 500;
const RUNNERS = ["w0", "w1"];
const ANCHORS = ["anchor-1", "anchor-2"];
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const SLEEP = ["/bin/busybox", "sleep", "1000"];

const shared = temporaryFolder();
const random = randomFrom(testSeed());
let registry: Registry;

beforeAll(async () => {
  registry = await startRegistry(join(shared, "registry"), await freePort());
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const base = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
  ]);
  const noise = (name: string) => tar([{ name, data: Buffer.from(random.text(300_000)) }]);
  const pack = (layer: Buffer) => ({ blob: gzipSync(layer, { level: 1 }), mediaType: LAYER });
  await pushImage(registry, "library/kept", "1", buildImage("kept", [base, noise("kept")], pack));
  // The lowest layer is the same, and so are its blob and its snapshot.
  const layers = [base, noise("a"), noise("b"), noise("c")];
  await pushImage(registry, "library/passing", "1", buildImage("passing", layers, pack));
});
afterAll(async () => {
  endNamespaces();
  await registry.stop();
  removeFolder(shared);
});

type Ctr = (...args: readonly string[]) => Promise<Finished>;

/** Calls under way. */
const running = new Set<Bun.Subprocess>();

/** The exit code of a ctr that {@link endCalls} may end. */
async function call(daemon: Daemon, namespace: string, args: readonly string[]): Promise<number> {
  const { command, env } = await ctrCommand("2.1", daemon, "-n", namespace, ...args);
  const child = start(command, {
    env: { ...process.env, ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
    cwd: daemon.folder,
  });
  running.add(child);
  const code = await child.exited;
  running.delete(child);
  return code;
}

/** Waits for the calls whose daemon has gone. Some of ctr's wait for it for ever. */
async function endCalls(living: Promise<unknown>): Promise<void> {
  await Promise.race([living, Bun.sleep(PATIENCE_MS)]);
  for (const child of running) child.kill("SIGKILL");
}

/** One life after another of an image or a container, until the daemon is killed; how many calls succeeded. */
async function live(
  steps: readonly (readonly string[])[],
  make: (args: readonly string[]) => Promise<number>,
  isOver: () => boolean,
): Promise<number> {
  let done = 0;
  for (;;) {
    for (const step of steps) {
      const code = await make(step);
      if (isOver()) return done;
      if (code === 0) done++;
    }
  }
}

const pullSteps = (image: string): string[][] => [
  ["images", "pull", "--plain-http", image],
  ["images", "rm", "--sync", image],
  ["images", "pull", "--local", "--plain-http", image],
  ["images", "rm", image],
];

const runSteps = (image: string, id: string): string[][] => [
  ["run", "-d", image, id, ...SLEEP],
  ["tasks", "exec", "--exec-id", "e", id, "/bin/busybox", "true"],
  ["tasks", "kill", "-s", "KILL", id],
  ["tasks", "rm", "-f", id],
  ["containers", "rm", id],
];

/** Everything that a daemon keeps of a namespace, read back. */
class Look {
  readonly #connection: Connection;
  readonly #options;

  constructor(daemon: Daemon, namespace: string) {
    this.#connection = connectGrpc(daemon.socket);
    this.#options = inNamespace(namespace);
  }

  async pids(): Promise<Record<string, number>> {
    const { tasks } = await this.#connection.client(Tasks).list({}, this.#options);
    return Object.fromEntries(tasks.map(({ id, pid }) => [id, pid]));
  }

  /** Ends what an unfinished life has left, by the API alone. */
  async sweep(ctr: Ctr): Promise<void> {
    for (const id of RUNNERS) {
      await until(`${id} is gone`, async () => {
        if (id in (await this.pids())) await ctr("tasks", "rm", "-f", id);
        return !(id in (await this.pids()));
      });
      await ctr("containers", "rm", id);
    }
    const { containers } = await this.#connection.client(Containers).list({}, this.#options);
    expect(containers.map(({ id }) => id)).toEqual(ANCHORS);
  }

  async leasesWithoutTime(): Promise<string[]> {
    const { leases } = await this.#connection.client(Leases).list({}, this.#options);
    const hasTime = (text = ""): boolean => Date.parse(text) > Date.now();
    return leases.filter(({ labels }) => !hasTime(labels["containerd.io/gc.expire"])).map(({ id }) => id);
  }

  /** Lets go of everything but what an image or an anchor keeps. */
  async collect(passing: string): Promise<void> {
    const leases = this.#connection.client(Leases);
    await this.#connection
      .client(Images)
      .delete({ name: passing }, this.#options)
      .catch(() => undefined);
    for (const { id } of (await leases.list({}, this.#options)).leases)
      await leases.delete({ id }, this.#options);
    await leases.create({ id: "last" }, this.#options);
    await leases.delete({ id: "last", sync: true }, this.#options);
  }

  async state(): Promise<{ ingests: string[]; blobs: string[]; snapshots: string[] }> {
    const content = this.#connection.client(Content);
    const blobs = (await Array.fromAsync(content.list({}, this.#options))).flatMap(({ info }) => info);
    const request = { snapshotter: "overlayfs" };
    const snapshots = (
      await Array.fromAsync(this.#connection.client(Snapshots).list(request, this.#options))
    ).flatMap(({ info }) => info);
    return {
      ingests: (await content.listStatuses({}, this.#options)).statuses.map(({ ref }) => ref),
      blobs: blobs.map(({ digest }) => digest).sort(),
      snapshots: snapshots.map(({ name }) => name).sort(),
    };
  }

  close(): void {
    this.#connection.close();
  }
}

test(`${ROUNDS} rounds`, async () => {
  const namespace = newNamespace();
  const [kept, passing] = [`${registry.host}/library/kept:1`, `${registry.host}/library/passing:1`];
  let daemon = await startDaemon("bunkerd");
  let ctr = ctrIn("2.1", daemon, namespace);
  expect(await ctr("images", "pull", "--plain-http", kept)).toMatchObject({ code: 0 });
  for (const id of ANCHORS) expect(await ctr("run", "-d", kept, id, ...SLEEP)).toMatchObject({ code: 0 });
  let look = new Look(daemon, namespace);
  const anchors = await look.pids();
  expect(Object.keys(anchors)).toEqual(ANCHORS);
  await look.collect(passing);
  const before = await look.state();
  let calls = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const label = `seed ${random.seed} round ${round}`;
      let isOver = false;
      const alive = daemon;
      const make = (args: readonly string[]): Promise<number> => call(alive, namespace, args);
      const lives = [pullSteps(passing), ...RUNNERS.map((id) => runSteps(kept, id))];
      const living = Promise.all(lives.map((steps) => live(steps, make, () => isOver)));
      await Bun.sleep(random.below(LONGEST_ROUND_MS));
      isOver = true;
      look.close();
      await daemon.kill();
      await endCalls(living);
      for (const done of await living) calls += done;
      expect(await checkDatabase(daemon.database)).toMatchObject({ code: 0 });
      daemon = await startDaemon("bunkerd", { folder: daemon.folder });
      ctr = ctrIn("2.1", daemon, namespace);
      look = new Look(daemon, namespace);
      expect(await look.pids(), label).toMatchObject(anchors);
      expect(await ctr("tasks", "exec", "--exec-id", "e", "anchor-1", "/bin/busybox", "true")).toMatchObject({
        code: 0,
      });
      await look.sweep(ctr);
      expect(await look.leasesWithoutTime(), label).toEqual([]);
      const left = (): string[] =>
        leftovers(daemon.folder, namespace).filter((what) => !what.includes("anchor-"));
      await until(
        () => `nothing is left, ${label}: ${left().join("\n")}\n${daemon.log().slice(-3000)}`,
        async () => {
          await look.pids();
          return left().length === 0;
        },
      );
    }
    await look.collect(passing);
    expect(await look.state(), `seed ${random.seed}`).toEqual(before);
    const content = join(daemon.root, "io.containerd.content.v1.content");
    expect(readdirSync(join(content, "ingest"))).toEqual([]);
    expect(
      readdirSync(join(content, "blobs/sha256"))
        .map((sum) => `sha256:${sum}`)
        .sort(),
    ).toEqual([...before.blobs]);
    const folders = readdirSync(join(daemon.root, "io.containerd.snapshotter.v1.overlayfs/snapshots"));
    expect(folders).toHaveLength(before.snapshots.length);
    // On a busy machine a short round may end before its first call has.
    expect(calls).toBeGreaterThan(ROUNDS / 4);
    for (const id of ANCHORS) {
      await ctr("tasks", "rm", "-f", id);
      await ctr("containers", "rm", id);
    }
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  } finally {
    look.close();
    await daemon.kill();
    endNamespaces();
    await daemon.stop();
  }
}, 1_200_000);
