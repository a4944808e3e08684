/**
 * `kill -9` of the daemon while containers are made, run, executed in and removed, round after round: what ran runs on under its
 * pid, and of what was under way nothing is left that cannot be reached and removed. 100 rounds with BUNKERD_TEST_LONG=1.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { ConnectError } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { Remote } from "../../src/client/remote.ts";
import { any } from "../support/comparison.ts";
import { endNamespaces, leftovers, makeRootfs, newNamespace, until } from "../support/containers.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 5 : 100;
const LONGEST_ROUND_MS = 700;
const WORKERS = 3;
const shared = temporaryFolder();
let rootfs = "";

beforeAll(async () => {
  rootfs = await makeRootfs(shared);
});
afterAll(() => {
  endNamespaces();
  removeFolder(shared);
});

const specProcess = { user: { uid: 0, gid: 0 }, args: ["/bin/sleep", "1000"], cwd: "/", env: ["PATH=/bin"] };
const execSpec = any(
  "types.containerd.io/opencontainers/runtime-spec/1/Process",
  JSON.stringify({ ...specProcess, args: ["/bin/true"] }),
);

function specOf(namespace: string, id: string) {
  const spec = {
    ociVersion: "1.0.2",
    process: specProcess,
    root: { path: "rootfs" },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      // runc writes into it, and the root is everybody's.
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
    ],
    linux: {
      cgroupsPath: `/${namespace}/${id}`,
      namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }],
    },
  };
  return any("types.containerd.io/opencontainers/runtime-spec/1/Spec", JSON.stringify(spec));
}

class Workload {
  readonly #connection;
  readonly #options;
  readonly #namespace: string;
  readonly #daemon: Daemon;
  #stopped = false;

  constructor(daemon: Daemon, namespace: string) {
    this.#daemon = daemon;
    this.#connection = new Remote(daemon.socket);
    this.#options = inNamespace(namespace);
    this.#namespace = namespace;
  }

  get tasks() {
    return this.#connection.service(Tasks);
  }

  get containers() {
    return this.#connection.service(Containers);
  }

  /** Makes a container and starts it; its pid. */
  async run(id: string): Promise<number> {
    const container = { id, runtime: { name: "io.containerd.runc.v2" }, spec: specOf(this.#namespace, id) };
    await this.containers.create({ container }, this.#options);
    const mounts = [{ type: "bind", source: rootfs, options: ["rbind", "rw"] }];
    await this.tasks.create({ containerId: id, rootfs: mounts }, this.#options);
    return (await this.tasks.start({ containerId: id }, this.#options)).pid;
  }

  async remove(id: string): Promise<void> {
    await this.tasks.kill({ containerId: id, signal: 9, all: true }, this.#options);
    await this.tasks.wait({ containerId: id }, this.#options);
    await this.tasks.delete({ containerId: id }, this.#options);
    await this.containers.delete({ id }, this.#options);
  }

  /** One life after the other, until the daemon is killed. */
  async live(id: string): Promise<number> {
    let lives = 0;
    try {
      while (!this.#stopped) {
        await this.run(id);
        await this.tasks.exec({ containerId: id, execId: "e", spec: execSpec }, this.#options);
        await this.tasks.start({ containerId: id, execId: "e" }, this.#options);
        await this.remove(id);
        lives++;
      }
    } catch (error) {
      if (this.#stopped && error instanceof ConnectError) return lives;
      throw new Error(`a call failed of itself: ${this.#daemon.log().slice(-3000)}`, { cause: error });
    }
    return lives;
  }

  async pids(): Promise<Record<string, number>> {
    const { tasks } = await this.tasks.list({}, this.#options);
    return Object.fromEntries(tasks.map(({ id, pid }) => [id, pid]));
  }

  /** Removes whatever an unfinished life has left, by the API alone. */
  async sweep(keep: readonly string[]): Promise<void> {
    const { containers } = await this.containers.list({}, this.#options);
    for (const { id } of containers.filter(({ id }) => !keep.includes(id))) {
      if (id in (await this.pids())) {
        await this.tasks
          .kill({ containerId: id, signal: 9, all: true }, this.#options)
          .catch(() => undefined);
        await until(`${id} is deleted`, async () => {
          const deleted = this.tasks.delete({ containerId: id }, this.#options);
          return await deleted.then(
            () => true,
            (error: unknown) => /not found/.test(String(error)),
          );
        });
      }
      await this.containers.delete({ id }, this.#options);
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  close(): void {
    this.#connection.close();
  }
}

test(`${ROUNDS} rounds`, async () => {
  const random = randomFrom(testSeed());
  const namespace = newNamespace();
  let daemon = await startDaemon("bunkerd");
  let workload = new Workload(daemon, namespace);
  const anchors: Record<string, number> = {};
  for (const id of ["anchor-1", "anchor-2"]) anchors[id] = await workload.run(id);
  let lives = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const living = Array.from({ length: WORKERS }, (_, worker) => workload.live(`w${worker}`));
      await Bun.sleep(random.below(LONGEST_ROUND_MS));
      workload.stop();
      await daemon.kill();
      for (const count of await Promise.all(living)) lives += count;
      workload.close();
      daemon = await startDaemon("bunkerd", { folder: daemon.folder });
      workload = new Workload(daemon, namespace);
      // A child that the killed daemon was just making still holds its socket, and may be whom the first call reaches.
      const pids = await until("the daemon answers", () => workload.pids().catch(() => undefined));
      expect(pids, `seed ${random.seed} round ${round}`).toMatchObject(anchors);
      await workload.sweep(Object.keys(anchors));
      // A delete that the shim was at when the daemon died is noticed by the next look.
      const left = (): string[] =>
        leftovers(daemon.folder, namespace).filter((what) => !what.includes("anchor-"));
      await until(
        () => {
          const log = daemon.log().split("\n").slice(-30).join("\n");
          return `nothing is left of seed ${random.seed} round ${round}: ${left().join("\n")}\n${log}`;
        },
        async () => {
          await workload.pids();
          return left().length === 0;
        },
      );
    }
    for (const id of Object.keys(anchors)) await workload.remove(id);
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
    // A busy machine does little in a round.
    if (ROUNDS > 50) expect(lives).toBeGreaterThan(ROUNDS / 10);
  } finally {
    workload.close();
    await daemon.kill();
    endNamespaces();
    await daemon.stop();
  }
});
