/** The restart monitor: what `containerd.io/restart.*` labels ask for, on containerd 2.1 and on bunkerd. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ctrIn, endNamespaces, leftovers, makeRootfs, newNamespace, until } from "../support/containers.ts";
import { type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { withMounts } from "../support/mounts.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

const CONFIG = '[plugins."io.containerd.internal.v1.restart"]\ninterval = "100ms"';
const shared = temporaryFolder();
let rootfs = "";

beforeAll(async () => {
  rootfs = await makeRootfs(shared);
});
afterAll(() => {
  endNamespaces();
  removeFolder(shared);
});

const SLEEP = ["/bin/sleep", "1000"];
/** Time for three looks: nothing happened then. */
const SOME_LOOKS_MS = 350;

describe.each(daemonKinds("bunkerd", "containerd-2.1").map((kind) => [kind] as const))("%s", (kind) => {
  let daemon: Daemon;
  let namespace: string;
  let ctr: ReturnType<typeof ctrIn>;
  beforeEach(async () => {
    namespace = newNamespace();
    daemon = await startDaemon(kind, { config: CONFIG });
    ctr = ctrIn("2.1", daemon, namespace);
  });
  afterEach(async () => {
    const ids = (await ctr("containers", "ls", "-q")).stdout.split("\n").filter(Boolean);
    for (const id of ids) {
      await ctr("containers", "label", id, "containerd.io/restart.status=", "containerd.io/restart.policy=");
      await Bun.sleep(120);
      await ctr("tasks", "rm", "-f", id);
      await ctr("containers", "rm", id);
    }
    if (kind === "bunkerd")
      await until("nothing is left", () => leftovers(daemon.folder, namespace).length === 0);
    await daemon.stop();
  });

  const label = async (id: string, labels: Record<string, string>): Promise<void> => {
    const pairs = Object.entries(labels).map(([key, value]) => `containerd.io/restart.${key}=${value}`);
    expect(await ctr("containers", "label", id, ...pairs)).toMatchObject({ code: 0 });
  };
  const taskOf = async (id: string): Promise<{ pid: number; status: string } | undefined> => {
    const [, pid, status = ""] =
      new RegExp(`^${id} +(\\d+) +([A-Z]+)`, "m").exec((await ctr("tasks", "ls")).stdout) ?? [];
    return pid === undefined ? undefined : { pid: Number(pid), status };
  };
  const run = async (id: string, args: readonly string[]): Promise<number> => {
    expect(await ctr("run", "-d", "--rootfs", rootfs, id, ...args)).toMatchObject({ code: 0 });
    return (await taskOf(id))?.pid ?? 0;
  };
  const countOf = async (id: string): Promise<string | undefined> =>
    /"containerd\.io\/restart\.count": "(\d+)"/.exec((await ctr("containers", "info", id)).stdout)?.[1];
  const runsAnew = (id: string, than: number): Promise<{ pid: number }> =>
    until(`${id} runs again`, async () => {
      const task = await taskOf(id);
      return task?.status === "RUNNING" && task.pid !== than ? task : undefined;
    });

  test("always: started again when killed, when its task is deleted and after a stop of the daemon; counted", async () => {
    let pid = await run("a", SLEEP);
    await label("a", { status: "running" });
    await ctr("tasks", "kill", "-s", "KILL", "a");
    ({ pid } = await runsAnew("a", pid));
    expect(await countOf("a")).toBe("1");
    process.kill(pid, "SIGKILL");
    ({ pid } = await runsAnew("a", pid));
    expect(await countOf("a")).toBe("2");
    await daemon.kill();
    process.kill(pid, "SIGKILL");
    daemon = await startDaemon(kind, { folder: daemon.folder, config: CONFIG });
    ctr = ctrIn("2.1", daemon, namespace);
    await runsAnew("a", pid);
    // What is paused is left alone.
    await ctr("tasks", "pause", "a");
    await Bun.sleep(SOME_LOOKS_MS);
    expect((await taskOf("a"))?.status).toBe("PAUSED");
    await ctr("tasks", "resume", "a");
  });

  test("on-failure: so many times, and not after success; unless-stopped; no; stopped", async () => {
    await run("a", ["/bin/false"]);
    await run("b", ["/bin/true"]);
    await label("a", { status: "running", policy: "on-failure:2" });
    await label("b", { status: "running", policy: "on-failure" });
    await until("the second start", async () => (await countOf("a")) === "2");
    const pid = await run("c", SLEEP);
    await label("c", { status: "running", policy: "no" });
    await run("web", SLEEP);
    await label("web", { status: "running", policy: "unless-stopped", "explicitly-stopped": "true" });
    for (const id of ["c", "web"]) await ctr("tasks", "kill", "-s", "KILL", id);
    await Bun.sleep(SOME_LOOKS_MS);
    const statuses = await Promise.all(["a", "b", "c", "web"].map(async (id) => (await taskOf(id))?.status));
    expect(statuses).toEqual(["STOPPED", "STOPPED", "STOPPED", "STOPPED"]);
    expect([await countOf("a"), await countOf("b"), await countOf("c")]).toEqual(["2", undefined, undefined]);
    await label("c", { policy: "unless-stopped" });
    await runsAnew("c", pid);
    await label("c", { status: "stopped" });
    await until("it is gone", async () => (await taskOf("c")) === undefined);
  }, 30_000);

  test("a snapshot as root file system, and a log that goes on", async () => {
    await using connection = connectGrpc(daemon.socket);
    const snapshotter = "native";
    const options = inNamespace(namespace);
    const labels = { "containerd.io/gc.root": "x" };
    const request = { snapshotter, key: "fs", labels };
    const { mounts } = await connection.client(Snapshots).prepare(request, options);
    const script = "echo hello; exec sleep 1000";
    await withMounts(mounts, join(daemon.folder, "mnt"), (target) => {
      Bun.spawnSync(["cp", "-a", `${rootfs}/.`, target]);
    });
    const log = join(daemon.folder, "out.log");
    await ctr("containers", "create", "--rootfs", rootfs, "one", "/bin/sh", "-c", script);
    const containers = connection.client(Containers);
    const { container } = await containers.get({ id: "one" }, options);
    const spec = JSON.parse(new TextDecoder().decode(container?.spec?.value)) as { root: { path: string } };
    spec.root.path = "rootfs";
    await containers.delete({ id: "one" }, options);
    const value = new TextEncoder().encode(JSON.stringify(spec));
    const typeUrl = container?.spec?.typeUrl ?? "";
    const runtime = { name: "io.containerd.runc.v2" };
    const made = { id: "one", runtime, spec: { typeUrl, value }, snapshotter, snapshotKey: "fs" };
    await containers.create({ container: made }, options);
    await label("one", { status: "running", loguri: `file://${log}` });
    const { pid } = await runsAnew("one", 0);
    await until("its words", () => existsSync(log) && readFileSync(log, "utf8") === "hello\n");
    process.kill(pid, "SIGKILL");
    await runsAnew("one", pid);
    await until("its words again", () => readFileSync(log, "utf8") === "hello\nhello\n");
  });
});
