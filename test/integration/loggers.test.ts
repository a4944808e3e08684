/** What a task's output goes to beside FIFOs, that it ran out of memory, and a checkpoint without criu; the same on containerd. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ctrIn, endNamespaces, leftovers, makeRootfs, newNamespace, until } from "../support/containers.ts";
import { watchEvents } from "../support/ctr-events.ts";
import { type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

const folder = temporaryFolder();
let rootfs = "";
beforeAll(async () => {
  rootfs = await makeRootfs(folder);
});
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const sh = (script: string): string[] => ["/bin/sh", "-c", script];

/** A logger as `pkg/logging` has them: output by 3, errors by 4, ready when 5 is closed. */
function logger(notes: string): string {
  const path = join(folder, "logger");
  writeFileSync(
    path,
    [
      "#!/bin/sh",
      `echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" >> ${notes}`,
      "exec 5>&-",
      `while read -r line; do echo "out: $line" >> ${notes}; done <&3 &`,
      `while read -r line; do echo "err: $line" >> ${notes}; done <&4 &`,
      "wait",
    ].join("\n"),
  );
  chmodSync(path, 0o755);
  return path;
}

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let daemon: Daemon;
  let namespace: string;
  let ctr: ReturnType<typeof ctrIn>;
  beforeAll(async () => {
    daemon = await startDaemon(kind);
    namespace = newNamespace();
    ctr = ctrIn("2.1", daemon, namespace);
  });
  afterAll(async () => {
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
    await daemon.stop();
  });

  const runDetached = (id: string, script: string, ...flags: string[]) =>
    ctr("run", "--detach", "--rootfs", ...flags, rootfs, id, ...sh(script));
  const stopped = (id: string) =>
    until(`${id} stops`, async () =>
      new RegExp(`^${id} .*STOPPED`, "m").test((await ctr("tasks", "ls")).stdout),
    );
  /** The task's exit code. */
  const remove = async (id: string): Promise<number> => {
    const { code, stdout, stderr } = await ctr("tasks", "rm", id);
    await ctr("containers", "rm", id);
    return Number(/exit with non-zero exit code (\d+)/.exec(stdout + stderr)?.[1] ?? code);
  };

  test("binary:// has a program that is told whose output it reads", async () => {
    const notes = join(daemon.folder, "notes");
    const uri = `binary://${logger(notes)}?color=blue`;
    expect(await runDetached("one", "echo first; echo wrong >&2; exit 5", "--log-uri", uri)).toMatchObject({
      code: 0,
    });
    await stopped("one");
    // Deleting the task ends its logger.
    const lines = () => readFileSync(notes, "utf8").trim().split("\n").sort();
    await until("both lines are noted", () => lines().length >= 3);
    expect(lines()).toEqual([`${namespace} one color blue`, "err: wrong", "out: first"].sort());
    expect(await remove("one")).toBe(5);
  });

  test("a logger that is not there is named", async () => {
    const started = await runDetached("a", "true", "--log-uri", "binary:///nothing/logger");
    expect(started.code).toBe(1);
    expect(started.stderr).toContain("/nothing/logger: no such file or directory");
    await ctr("containers", "rm", "a");
  });

  test("file:// takes output of both kinds, below folders that are made for it", async () => {
    const path = join(daemon.folder, "made/out.log");
    expect(
      await runDetached("b", "echo out; echo err >&2; exec sleep 100", "--log-uri", `file://${path}`),
    ).toMatchObject({ code: 0 });
    // While it runs: the shim may lose what a task wrote just before its end.
    const lines = () => (existsSync(path) ? readFileSync(path, "utf8").split("\n").sort() : []);
    await until("both lines are written", () => lines().length >= 3);
    expect(lines()).toEqual(["", "err", "out"]);
    expect((await ctr("tasks", "kill", "--signal", "SIGKILL", "b")).code).toBe(0);
    await stopped("b");
    expect(await remove("b")).toBe(137);
  });

  test("a task that runs out of memory is told of by an event", async () => {
    await using watched = await watchEvents(daemon);
    const topics = () => watched.seen.filter((line) => line.includes(` ${namespace} /tasks/`)).join("\n");
    // 64 MiB of zeros are written into memory before any is copied.
    const script = "sleep 0.3; dd if=/dev/zero of=/dev/null bs=64M count=1";
    expect(await runDetached("c", script, "--memory-limit", String(16 << 20))).toMatchObject({ code: 0 });
    await stopped("c");
    await until(
      () => `an event of memory: ${topics()}`,
      () => /\/tasks\/oom .*"container_id":"c"/.test(topics()),
    );
    expect(await remove("c")).toBe(137);
  });

  test("a checkpoint without criu fails, says so, and the task runs on", async () => {
    if (Bun.which("criu") !== null) {
      process.stdout.write("skipped: criu is installed\n");
      return;
    }
    await runDetached("web", "trap 'exit 7' TERM; while :; do sleep 0.1; done");
    const path = join(daemon.folder, "checkpoint");
    for (const args of [["--image-path", path], []]) {
      const failed = await ctr("tasks", "checkpoint", ...args, "web");
      expect(failed.code).toBe(1);
      expect(failed.stderr).toMatch(/criu|not implemented/i);
    }
    expect(existsSync(join(path, "inventory.img"))).toBe(false);
    expect((await ctr("tasks", "ls")).stdout).toMatch(/^web .*RUNNING/m);
    await ctr("tasks", "kill", "web");
    await stopped("web");
    expect(await remove("web")).toBe(7);
  });
});
