/**
 * A shim that speaks gRPC instead of ttrpc. Not on containerd 2.1: its `grpcDialContext` takes a connection that is not made yet for
 * one that has ended, and removes the bundle while the shim creates the task.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { grpcTransport } from "../../src/transport/grpc/client.ts";
import {
  ctrIn,
  endNamespaces,
  leftovers,
  makeRootfs,
  newNamespace,
  shimsOf,
  until,
} from "../support/containers.ts";
import { containerdProgram, daemonKinds, startDaemon } from "../support/daemons.ts";
import { inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { writeGrpcShim } from "../support/sandbox-shim.ts";

const folder = temporaryFolder();
let rootfs = "";
let shim = "";

beforeAll(async () => {
  rootfs = await makeRootfs(folder);
  shim = writeGrpcShim(folder, await containerdProgram("2.1", "containerd-shim-runc-v2"));
});
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const FOREVER = ["/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"];

/** The process that serves gRPC there. */
function serverOf(socket: string): number {
  const pid = readdirSync("/proc").find((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(join("/proc", name, "cmdline"), "utf8")
        .split("\0")
        .includes(socket);
    } catch {
      return false;
    }
  });
  if (pid === undefined) throw new Error(`nobody serves ${socket}`);
  return Number(pid);
}

describe.each(daemonKinds("bunkerd").map((kind) => [kind] as const))("%s", (kind) => {
  test("runs containers, whose tasks outlive the daemon", async () => {
    await using first = await startDaemon(kind);
    const namespace = newNamespace();
    let ctr = ctrIn("2.1", first, namespace);
    const run = (...args: string[]) => ctr("run", "--rootfs", "--runtime", shim, ...args);
    expect(await run("--rm", rootfs, "once", "/bin/sh", "-c", "echo hello; exit 3")).toMatchObject({
      code: 3,
      stdout: "hello\n",
    });
    expect(await run("-d", rootfs, "web", ...FOREVER)).toMatchObject({ code: 0 });
    await first.kill();
    await using daemon = await startDaemon(kind, { folder: first.folder });
    ctr = ctrIn("2.1", daemon, namespace);
    const { stdout } = await ctr("tasks", "ls");
    expect(stdout).toMatch(/web +\d+ +RUNNING/);
    expect((await ctr("tasks", "exec", "--exec-id", "e", "web", "/bin/sh", "-c", "exit 4")).code).toBe(4);
    await ctr("tasks", "kill", "web");
    const ended = await until("the task's end", async () => {
      const listed = await ctr("tasks", "ls");
      return listed.stdout.includes("STOPPED") && listed;
    });
    expect(ended.stdout).toContain("web");
    expect((await ctr("tasks", "rm", "web")).stderr).toContain("exit with non-zero exit code 7");
    await ctr("containers", "rm", "web");
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });

  test("that dies leaves an exit of 137 and nothing else", async () => {
    await using daemon = await startDaemon(kind);
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    await ctr("run", "-d", "--rootfs", "--runtime", shim, rootfs, "web", ...FOREVER);
    const tasks = createClient(Tasks, grpcTransport({ connect: daemon.socket, maxMessageBytes: 1 << 20 }));
    const waiting = tasks.wait({ containerId: "web" }, inNamespace(namespace));
    const bundle = join(daemon.folder, "state/io.containerd.runtime.v2.task", namespace, "web");
    const { address } = JSON.parse(readFileSync(join(bundle, "bootstrap.json"), "utf8")) as {
      address: string;
    };
    process.kill(serverOf(address), "SIGKILL");
    expect(await waiting).toMatchObject({ exitStatus: 137 });
    await until("its socket is removed", () => !existsSync(address));
    // The real one, which it was the front of.
    for (const { pid } of shimsOf(namespace)) process.kill(pid, "SIGKILL");
    rmSync(address.replace(/\.s$/, ""), { force: true });
    expect((await ctr("tasks", "kill", "web")).stderr).toContain("not found");
    await ctr("containers", "rm", "web");
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });
});
