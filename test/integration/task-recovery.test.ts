/** Containers outlive their daemon: killed and started again, replaced by containerd and back; shims that die and shims that hang. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import { packSpec } from "../../src/client/spec.ts";
import { ctrCommand } from "../support/commands.ts";
import {
  ctrIn,
  endNamespaces,
  leftovers,
  makeRootfs,
  newNamespace,
  shimsOf,
  until,
} from "../support/containers.ts";
import { watchEvents } from "../support/ctr-events.ts";
import { type Daemon, type DaemonKind, daemonKinds, startDaemon, type Version } from "../support/daemons.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { output, removeFolder, temporaryFolder } from "../support/processes.ts";

const kinds = daemonKinds("bunkerd");
const shared = temporaryFolder();
let rootfs = "";

beforeAll(async () => {
  rootfs = await makeRootfs(shared);
});
afterAll(() => {
  endNamespaces();
  removeFolder(shared);
});

const sh = (script: string): string[] => ["/bin/sh", "-c", script];
const FOREVER = sh("trap 'exit 7' TERM; while :; do sleep 0.1; done");
type Ctr = ReturnType<typeof ctrIn>;

async function statusOf(ctr: Ctr, id: string): Promise<string | undefined> {
  return new RegExp(`^${id} +\\d+ +([A-Z]+)`, "m").exec((await ctr("tasks", "ls")).stdout)?.[1];
}

/** Deletes a task; the exit code that ctr tells. */
async function exitCodeOf(ctr: Ctr, id: string): Promise<number> {
  const removed = await ctr("tasks", "rm", id);
  await ctr("containers", "rm", id);
  expect(removed.code, removed.stderr).toBe(0);
  return Number(/exit with non-zero exit code (\d+)/.exec(removed.stderr)?.[1] ?? 0);
}

/** Starts what the next daemon must find: running, paused, on a terminal, and one that ends in between. */
async function startContainers(daemon: Daemon, namespace: string): Promise<void> {
  const ctr = ctrIn("2.1", daemon, namespace);
  await ctr("run", "-d", "--rootfs", rootfs, "runs", ...FOREVER);
  await ctr("run", "-d", "--rootfs", rootfs, "paused", ...FOREVER);
  await ctr("tasks", "pause", "paused");
  await onTerminal(daemon, namespace, `run -d -t --rootfs ${rootfs} tty /bin/sleep 1000`);
  const mount = `type=bind,src=${join(daemon.folder, "flag")},dst=/flag,options=rbind:ro`;
  mkdirSync(join(daemon.folder, "flag"), { recursive: true });
  const ending = sh("while ! [ -e /flag/go ]; do sleep 0.05; done; exit 5");
  await ctr("run", "-d", "--rootfs", "--mount", mount, rootfs, "ends", ...ending);
  const exec = ["tasks", "exec", "--detach", "--exec-id", "live", "runs"];
  expect(await ctr(...exec, ...sh("trap 'exit 9' USR1; while :; do sleep 0.1; done"))).toMatchObject({
    code: 0,
  });
  const states = ["runs", "paused", "tty", "ends"].map((id) => statusOf(ctr, id));
  expect(await Promise.all(states)).toEqual(["RUNNING", "PAUSED", "RUNNING", "RUNNING"]);
}

/** The exec that was begun under the daemon before: told among the processes, signalled, waited for and deleted. */
async function endExec(daemon: Daemon, namespace: string): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const tasks = connection.client(Tasks);
  const exec = { containerId: "runs", execId: "live" };
  const options = inNamespace(namespace);
  const { process: told } = await tasks.get(exec, options);
  expect(told).toMatchObject({ id: "live", status: Status.RUNNING });
  const { processes } = await tasks.listPids({ containerId: "runs" }, options);
  expect(processes.map(({ pid }) => pid)).toContain(told?.pid ?? 0);
  const ended = tasks.wait(exec, options);
  await tasks.kill({ ...exec, signal: constants.signals.SIGUSR1 }, options);
  expect((await ended).exitStatus).toBe(9);
  expect((await tasks.deleteProcess(exec, options)).exitStatus).toBe(9);
}

/** ctr wants a terminal of its own to make one in the container. */
async function onTerminal(daemon: Daemon, namespace: string, args: string): Promise<void> {
  const { command } = await ctrCommand("2.1", daemon, "-n", namespace, ...args.split(" "));
  await output(["script", "-qec", command.join(" "), "/dev/null"]);
}

function specOf(namespace: string): object {
  return {
    ociVersion: "1.0.2",
    process: { user: { uid: 0, gid: 0 }, args: ["/bin/sleep", "1000"], cwd: "/", env: ["PATH=/bin"] },
    root: { path: rootfs },
    mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
    linux: {
      cgroupsPath: `/${namespace}/web`,
      namespaces: ["pid", "ipc", "uts", "mount"].map((type) => ({ type })),
    },
  };
}

/** Processes that were started in a bundle of the namespace, whether it is still there or not. */
function processesAt(namespace: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(join("/proc", pid, "cwd")).includes(`/${namespace}/`);
    } catch {
      // It has ended.
      return false;
    }
  });
}

/** What the next daemon must be able to do with them. */
async function useContainers(daemon: Daemon, namespace: string, keepsEnded = true): Promise<void> {
  const ctr = ctrIn("2.1", daemon, namespace);
  const states = ["runs", "paused", "tty", "ends"].map((id) => statusOf(ctr, id));
  expect(await Promise.all(states)).toEqual([
    "RUNNING",
    "PAUSED",
    "RUNNING",
    keepsEnded ? "STOPPED" : undefined,
  ]);
  const ran = await ctr("tasks", "exec", "--exec-id", "e", "runs", ...sh("echo in exec; exit 3"));
  expect(ran).toMatchObject({ code: 3, stdout: "in exec\n" });
  await endExec(daemon, namespace);
  await ctr("tasks", "resume", "paused");
  expect(await statusOf(ctr, "paused")).toBe("RUNNING");
  for (const [id, signal] of [
    ["runs", "TERM"],
    ["paused", "TERM"],
    ["tty", "KILL"],
  ] as const) {
    await ctr("tasks", "kill", "--signal", signal, id);
    await until(`${id} ends`, async () => (await statusOf(ctr, id)) === "STOPPED");
  }
  const codes: number[] = [];
  for (const id of ["runs", "paused", "tty"]) codes.push(await exitCodeOf(ctr, id));
  expect(codes).toEqual([7, 7, 137]);
  if (keepsEnded) expect(await exitCodeOf(ctr, "ends")).toBe(5);
}

/** Lets `ends` end while no daemon is there. */
async function endOne(daemon: Daemon, namespace: string): Promise<void> {
  writeFileSync(join(daemon.folder, "flag/go"), "");
  await until("the container without a daemon ends", () => containerPids(namespace, "ends").length === 0);
}

function containerPids(namespace: string, id: string): string[] {
  const procs = join("/sys/fs/cgroup/pids", namespace, id, "cgroup.procs");
  return existsSync(procs) ? readFileSync(procs, "utf8").split("\n").filter(Boolean) : [];
}

describe.each(kinds.map((kind) => [kind] as const))("%s", (kind) => {
  test.each([["2.1"], ["1.6"]] as const)(
    "kill -9 of the daemon loses no container (shim of %s)",
    async (shim: Version) => {
      const killed = await startDaemon(kind, { shim });
      const namespace = newNamespace();
      await startContainers(killed, namespace);
      await killed.kill();
      await endOne(killed, namespace);
      await using daemon = await startDaemon(kind, { shim, folder: killed.folder });
      await useContainers(daemon, namespace);
      expect(leftovers(daemon.folder, namespace)).toEqual([]);
    },
  );

  test("a shim that dies takes its container along; the world is told", async () => {
    await using daemon = await startDaemon(kind);
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    {
      await using events = await watchEvents(daemon);
      const { seen } = events;
      const waiting = ctr("run", "--rootfs", rootfs, "web", ...FOREVER);
      const shim = await until("a running task", async () =>
        (await statusOf(ctr, "web")) === "RUNNING" ? shimsOf(namespace)[0] : undefined,
      );
      process.kill(shim.pid, "SIGKILL");
      await until("the delete event", () => seen.some((line) => line.includes("/tasks/delete")));
      const told = seen.filter((line) => /\/tasks\/(?:exit|delete)/.test(line)).join("\n");
      expect(told).toMatch(
        /exit \{"container_id":"web","id":"web",.*"exit_status":137[\s\S]*delete \{.*"exit_status":137/,
      );
      await waiting;
      expect(await statusOf(ctr, "web")).toBeUndefined();
    }
    await ctr("containers", "rm", "web");
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });

  test("shims that died with the daemon are cleaned up after at its start", async () => {
    const killed = await startDaemon(kind);
    const namespace = newNamespace();
    const before = ctrIn("2.1", killed, namespace);
    for (const id of ["a", "b", "c"]) await before("run", "-d", "--rootfs", rootfs, id, ...FOREVER);
    await killed.kill();
    for (const { pid, id } of shimsOf(namespace)) if (id !== "b") process.kill(pid, "SIGKILL");
    await using daemon = await startDaemon(kind, { folder: killed.folder });
    const ctr = ctrIn("2.1", daemon, namespace);
    expect((await ctr("tasks", "ls", "-q")).stdout).toBe("b\n");
    // The ids are free again.
    expect((await ctr("tasks", "start", "-d", "a")).code).toBe(0);
    for (const id of ["a", "b"]) await ctr("tasks", "rm", "-f", id);
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });

  test("a task whose making outlasts the daemon is given up whole", async () => {
    const killed = await startDaemon(kind);
    const namespace = newNamespace();
    const begun = join(killed.folder, "begun");
    // The cgroups are there then, and the container's first process.
    const hook = { path: "/bin/sh", args: ["sh", "-c", `touch ${begun}; sleep 1000`] };
    {
      await using connection = connectGrpc(killed.socket);
      const options = inNamespace(namespace);
      const container = {
        id: "web",
        runtime: { name: "io.containerd.runc.v2" },
        spec: packSpec({ ...specOf(namespace), hooks: { createRuntime: [hook] } }),
      };
      await connection.client(Containers).create({ container }, options);
      const made = connection
        .client(Tasks)
        .create({ containerId: "web" }, options)
        .then(
          () => "made",
          () => "cut off",
        );
      await until("runc is at work", () => existsSync(begun));
      await killed.kill();
      expect(await made).toBe("cut off");
    }
    await using daemon = await startDaemon(kind, { folder: killed.folder });
    let left: string[] = [];
    await until(
      () => `nothing is left: ${left.join("\n")}`,
      () => {
        left = [...leftovers(daemon.folder, namespace), ...processesAt(namespace)];
        return left.length === 0;
      },
    );
  });

  test("a daemon with another root leaves alone what it finds in the state", async () => {
    const first = await startDaemon(kind);
    const namespace = newNamespace();
    const before = ctrIn("2.1", first, namespace);
    await before("containers", "create", "--rootfs", rootfs, "made", ...FOREVER);
    await before("run", "-d", "--rootfs", rootfs, "ended", "/bin/false");
    {
      await using connection = connectGrpc(first.socket);
      await connection.client(Tasks).create({ containerId: "made" }, inNamespace(namespace));
    }
    await until("it ends", async () => (await statusOf(before, "ended")) === "STOPPED");
    await first.halt();
    const wrong = await startDaemon(kind, { folder: first.folder, root: join(first.folder, "other") });
    expect((await ctrIn("2.1", wrong, namespace)("tasks", "ls", "-q")).stdout).toBe("");
    expect(wrong.log().match(/bundle of a daemon with another root, left alone/g)).toHaveLength(2);
    await wrong.halt();
    await using daemon = await startDaemon(kind, { folder: first.folder });
    const ctr = ctrIn("2.1", daemon, namespace);
    expect([await statusOf(ctr, "made"), await statusOf(ctr, "ended")]).toEqual(["CREATED", "STOPPED"]);
    expect(await exitCodeOf(ctr, "ended")).toBe(1);
    await ctr("tasks", "rm", "-f", "made");
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });

  test("a shim that hangs delays nobody else's answers, and its task is kept over a restart", async () => {
    const config = '[timeouts]\n"io.containerd.timeout.task.state" = "300ms"';
    const killed = await startDaemon(kind, { config });
    const namespace = newNamespace();
    const before = ctrIn("2.1", killed, namespace);
    for (const id of ["hangs", "works"]) await before("run", "-d", "--rootfs", rootfs, id, ...FOREVER);
    const shim = shimsOf(namespace).find(({ id }) => id === "hangs");
    process.kill(shim?.pid ?? 0, "SIGSTOP");
    expect([await statusOf(before, "hangs"), await statusOf(before, "works")]).toEqual([
      "UNKNOWN",
      "RUNNING",
    ]);
    await killed.kill();
    await using daemon = await startDaemon(kind, { config, folder: killed.folder });
    const ctr = ctrIn("2.1", daemon, namespace);
    expect([await statusOf(ctr, "hangs"), await statusOf(ctr, "works")]).toEqual(["UNKNOWN", "RUNNING"]);
    process.kill(shim?.pid ?? 0, "SIGCONT");
    await until("it answers again", async () => (await statusOf(ctr, "hangs")) === "RUNNING");
    for (const id of ["hangs", "works"]) await ctr("tasks", "rm", "-f", id);
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });
});

const TAKEOVERS: readonly (readonly [DaemonKind, DaemonKind])[] = kinds.includes("bunkerd")
  ? [
      ["containerd-2.1", "bunkerd"],
      ["bunkerd", "containerd-2.1"],
      ["containerd-1.6", "bunkerd"],
    ]
  : [];

test.each(TAKEOVERS)("%s's containers run on under %s", async (from, to) => {
  const first = await startDaemon(from);
  const namespace = newNamespace();
  await startContainers(first, namespace);
  await first.halt();
  await endOne(first, namespace);
  await using second = await startDaemon(to, { folder: first.folder });
  // containerd takes a shim without processes for one that never got a container, and its exit code is lost.
  await useContainers(second, namespace, to === "bunkerd");
  expect(leftovers(second.folder, namespace)).toEqual([]);
});
