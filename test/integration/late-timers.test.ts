/** runc's shims start with late timers, and nothing of a user's does: not a container, an exec, a hook, a logger, nor what a daemon leaves behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { packSpec } from "../../src/client/spec.ts";
import { LATE_NS } from "../../src/linux/timer-slack.ts";
import {
  ctrIn,
  endNamespaces,
  leftovers,
  makeRootfs,
  newNamespace,
  shimsOf,
  until,
} from "../support/containers.ts";
import { type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

const SLACK = "/proc/self/timerslack_ns";
const usual = readFileSync(SLACK, "utf8");
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

/** Of all its threads, each once. */
function slacksOf(pid: number): number[] {
  const threads = readdirSync(`/proc/${pid}/task`);
  return [...new Set(threads.map((thread) => Number(readFileSync(`/proc/${thread}/timerslack_ns`, "utf8"))))];
}

function shimOf(namespace: string): number {
  const [shim] = shimsOf(namespace);
  if (shim === undefined) throw new Error(`no shim in ${namespace}`);
  return shim.pid;
}

/** A container that writes its slack, and then whatever the spec adds, to `out` in its folder. */
function specOf(namespace: string, out: string, more: object = {}): object {
  return {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args: sh(`cat ${SLACK} > /out/init; exec sleep 1000`),
      cwd: "/",
      env: ["PATH=/bin"],
    },
    root: { path: rootfs },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/out", type: "bind", source: out, options: ["rbind", "rw"] },
    ],
    linux: {
      cgroupsPath: `/${namespace}/web`,
      namespaces: ["pid", "ipc", "uts", "mount"].map((type) => ({ type })),
    },
    ...more,
  };
}

describe.each(daemonKinds("bunkerd"))("%s", (kind) => {
  let daemon: Daemon;
  let namespace: string;
  let ctr: ReturnType<typeof ctrIn>;
  const renew = (at: Daemon): void => {
    daemon = at;
    ctr = ctrIn("2.1", daemon, namespace);
  };
  beforeAll(async () => {
    namespace = newNamespace();
    renew(await startDaemon(kind));
  });
  afterAll(async () => {
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
    await daemon.stop();
  });
  const end = async (id: string): Promise<void> => {
    await ctr("tasks", "rm", "-f", id);
    await ctr("containers", "rm", id);
  };
  /** Creates the container and its task. */
  const create = async (id: string, spec: object): Promise<number> => {
    await using connection = connectGrpc(daemon.socket);
    const options = inNamespace(namespace);
    const container = { id, runtime: { name: "io.containerd.runc.v2" }, spec: packSpec(spec) };
    await connection.client(Containers).create({ container }, options);
    return (await connection.client(Tasks).create({ containerId: id }, options)).pid;
  };
  const start = async (id: string): Promise<void> => {
    await using connection = connectGrpc(daemon.socket);
    await connection.client(Tasks).start({ containerId: id }, inNamespace(namespace));
  };

  test("a shim is late, its container and an exec in it are not; then the shim is not either", async () => {
    const pid = await create("one", specOf(namespace, shared));
    const shim = shimOf(namespace);
    expect(slacksOf(shim)).toEqual([LATE_NS]);
    expect(slacksOf(pid)).toEqual([Number(usual)]);
    await start("one");
    await until("it has told", () => existsSync(join(shared, "init")));
    const script = `cat ${SLACK}`;
    const exec = await ctr("tasks", "exec", "--exec-id", "e", "one", ...sh(script));
    expect(exec.stdout).toBe(usual);
    expect(slacksOf(shim)).toEqual([Number(usual)]);
    expect(readFileSync(join(shared, "init"), "utf8")).toBe(usual);
    await end("one");
  });

  test("two seconds after the last start a shim is punctual, whether anything is asked of it or not", async () => {
    await ctr("run", "-d", "--rootfs", rootfs, "a", ...FOREVER);
    const shim = shimOf(namespace);
    expect(slacksOf(shim)).toEqual([LATE_NS]);
    await until("it is punctual", () => slacksOf(shim).every((slack) => slack === Number(usual)));
    await end("a");
  });

  test("hooks and a logger are not late", async () => {
    const [hooked, logged] = [join(shared, "hooked"), join(shared, "logged")];
    const hook = { path: "/bin/sh", args: ["sh", "-c", `cat ${SLACK} > ${hooked}`] };
    await create("b", specOf(namespace, shared, { hooks: { createRuntime: [hook] } }));
    expect(readFileSync(hooked, "utf8")).toBe(usual);
    await end("b");
    const logger = join(shared, "logger");
    writeFileSync(logger, `#!/bin/sh\ncat ${SLACK} > ${logged}\nexec 5>&-\ncat <&3 >/dev/null`);
    chmodSync(logger, 0o755);
    const uri = `binary://${logger}`;
    const ran = await ctr("run", "--detach", "--log-uri", uri, "--rootfs", rootfs, "c", "/bin/true");
    expect(ran.stderr).toBe("");
    await until("it has told", () => existsSync(logged) && readFileSync(logged, "utf8") !== "");
    expect(readFileSync(logged, "utf8")).toBe(usual);
    await end("c");
  });

  test("a daemon that ends leaves no late shim", async () => {
    await ctr("run", "-d", "--rootfs", rootfs, "works", ...FOREVER);
    const shim = shimOf(namespace);
    expect(slacksOf(shim)).toEqual([LATE_NS]);
    await daemon.halt();
    expect(slacksOf(shim)).toEqual([Number(usual)]);
    renew(await startDaemon(kind, { folder: daemon.folder }));
    await end("works");
  });

  test("what a killed daemon has left late is made punctual by the next one", async () => {
    const pid = await create("web", specOf(namespace, shared));
    const shim = shimOf(namespace);
    await daemon.kill();
    // It may have died before it got to this.
    for (const thread of readdirSync(`/proc/${pid}/task`))
      writeFileSync(`/proc/${thread}/timerslack_ns`, String(LATE_NS), { flag: "r+" });
    expect(slacksOf(shim)).toEqual([LATE_NS]);
    renew(await startDaemon(kind, { folder: daemon.folder }));
    await until("the shim is punctual", () => slacksOf(shim).every((slack) => slack === Number(usual)));
    writeFileSync(join(shared, "init"), "");
    await start("web");
    await until("it has told", () => readFileSync(join(shared, "init"), "utf8") !== "");
    expect(readFileSync(join(shared, "init"), "utf8")).toBe(usual);
    await end("web");
  });

  test("a daemon that could not make them punctual again does not make them late", async () => {
    const without = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"];
    await using limited = await startDaemon(kind, { prefix: without });
    const run = ctrIn("2.1", limited, namespace);
    await run("run", "-d", "--rootfs", rootfs, "w0", ...FOREVER);
    expect(slacksOf(shimOf(namespace))).toEqual([Number(usual)]);
    await run("tasks", "rm", "-f", "w0");
    await run("containers", "rm", "w0");
    expect(leftovers(limited.folder, namespace)).toEqual([]);
  });
});
