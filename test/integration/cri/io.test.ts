/** Container stdio and execs on Debian's shim and runc. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ByteSink } from "../../../src/cri/io/attachment.ts";
import { ContainerIo } from "../../../src/cri/io/container-io.ts";
import {
  CappedOutput,
  type ExecOptions,
  execInContainer,
  type TerminalSize,
} from "../../../src/cri/io/exec.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { makeRootfs, until } from "../../support/containers.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";
import { type TestTasks, testTasks } from "../../support/task-store.ts";

const dependencies = { clock: systemClock(), logger: silentLogger };
const shared = temporaryFolder();
let rootfs = "";

beforeAll(async () => {
  rootfs = await makeRootfs(shared);
});
afterAll(() => removeFolder(shared));

const sh = (script: string): string[] => ["/bin/sh", "-c", script];
const logOf = (path: string): string => readFileSync(path, "utf8").replaceAll(/^\S+ /gm, "");

async function* bytesOf(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

describe("a container", () => {
  test("its output is in the log to the last byte, however much comes at the end", async () => {
    await using given = await testTasks(rootfs);
    const io = ContainerIo.create(
      { id: "one", root: given.folder, tty: false, stdin: false, stdinOnce: false },
      dependencies,
    );
    const path = join(given.folder, "0.log");
    await io.openLog(path, 16 << 10);
    io.start();
    const script = "dd if=/dev/zero bs=1000 count=3000 2>/dev/null; echo err >&2; echo out";
    await given.run("one", sh(script), io.stdio, { created: () => io.writerCame() });
    await given.tasks.wait(given.scope, { containerId: "one", execId: "" });
    await io.drained();
    await given.remove("one");
    await io.close();
    const lines = logOf(path).split("\n");
    const zeros = lines
      .filter((line) => line.includes("\0"))
      .map((line) => line.replace(/^stdout [PF] /, ""));
    expect(zeros.join("").replaceAll("out", "").length).toBe(3_000_000);
    expect(lines.filter((line) => line.startsWith("stderr"))).toEqual(["stderr F err"]);
    expect(lines.filter((line) => line.endsWith("out"))).toHaveLength(1);
  });

  test("the next daemon's log goes on where this one's stops", async () => {
    await using given = await testTasks(rootfs);
    const options = { id: "runs", root: given.folder, tty: false, stdin: false, stdinOnce: false };
    const path = join(given.folder, "0.log");
    const first = ContainerIo.create(options, dependencies);
    await first.openLog(path, 16 << 10);
    first.start();
    const script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done";
    await given.run("runs", sh(script), first.stdio, { created: () => first.writerCame() });
    await until("a first line", () => readFileSync(path).length > 0);
    await first.release();
    const { stdin, stdout, stderr, terminal } = await given.tasks.get(given.scope, {
      containerId: "runs",
      execId: "",
    });
    const second = ContainerIo.reopen({ stdin, stdout, stderr, terminal }, options, dependencies);
    await second.openLog(path, 16 << 10);
    second.start();
    second.writerCame();
    await given.tasks.wait(given.scope, { containerId: "runs", execId: "" });
    await second.drained();
    await given.remove("runs");
    await second.close();
    const text = logOf(path).replaceAll(/^stdout P (.*)\nstdout F /gm, "stdout F $1");
    expect(text).toBe(Array.from({ length: 20_000 }, (_, line) => `stdout F ${line}\n`).join(""));
    expect(readdirSync(join(given.folder, "io"))).toEqual([]);
  });

  test("attached on a terminal: its stdin, its output, one stream", async () => {
    await using given = await testTasks(rootfs);
    const io = ContainerIo.create(
      { id: "tty", root: given.folder, tty: true, stdin: true, stdinOnce: false },
      dependencies,
    );
    const path = join(given.folder, "0.log");
    await io.openLog(path, 16 << 10);
    io.start();
    await given.run("tty", sh("read line; echo got $line >&2"), io.stdio, { created: () => io.writerCame() });
    const output = new CappedOutput(1 << 20);
    const hold = Promise.withResolvers<void>();
    async function* typing(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("typed\n");
      await hold.promise;
    }
    await io.attach({
      stdin: typing(),
      stdout: output,
      closeStdin: () => Promise.reject(new Error("a terminal's stdin stays open")),
    });
    hold.resolve();
    expect(Buffer.from(output.bytes()).toString()).toContain("got typed\r\n");
    // The client may have all of it before the disk has.
    await io.drained();
    expect(logOf(path)).toContain("stdout F got typed\n");
    await given.remove("tty");
    await io.close();
  });
});

describe("an exec", () => {
  let given: TestTasks;
  let process: ExecOptions["process"];
  let io: ContainerIo;
  beforeAll(async () => {
    given = await testTasks(rootfs);
    io = ContainerIo.create(
      { id: "web", root: given.folder, tty: false, stdin: false, stdinOnce: false },
      dependencies,
    );
    io.start();
    const created = (): void => io.writerCame();
    process = await given.run("web", sh("while :; do sleep 1; done"), io.stdio, { created });
  });
  afterAll(async () => {
    await until("execs are gone", () => readdirSync(join(given.folder, "exec/io")).length === 0);
    await given.remove("web");
    await io.close();
    await given[Symbol.asyncDispose]();
  });

  async function exec(command: readonly string[], options: Partial<ExecOptions> = {}, signal?: AbortSignal) {
    const [stdout, stderr] = [new CappedOutput(1 << 24), new CappedOutput(1 << 24)];
    const root = join(given.folder, "exec");
    mkdirSync(root, { recursive: true });
    const streams = { ...options.streams, stdout, stderr };
    const common = {
      containerId: "web",
      process,
      root,
      command,
      tty: false,
      timeoutMs: 0,
      drainTimeoutMs: 0,
    };
    const running = execInContainer(
      { tasks: given.tasks, logger: silentLogger },
      { ...given.scope, signal },
      { ...common, ...options, streams },
    );
    const code = await running;
    const text = (output: CappedOutput): string => Buffer.from(output.bytes()).toString();
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }

  test("answers its outputs and its exit code", async () => {
    expect(await exec(sh("echo out; echo err >&2; exit 3"))).toEqual({
      code: 3,
      stdout: "out\n",
      stderr: "err\n",
    });
    expect(await exec(["/bin/true"])).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  test("reads stdin to its end", async () => {
    const streams = { stdin: bytesOf("a\n", "b\n") };
    expect(await exec(["/bin/cat"], { streams })).toMatchObject({ code: 0, stdout: "a\nb\n" });
  });

  test("much output arrives whole, and only as much as is kept", async () => {
    const { code, stdout } = await exec(sh("dd if=/dev/zero bs=100000 count=200 2>/dev/null"));
    expect(code).toBe(0);
    expect(stdout.length).toBe(1 << 24);
  });

  test("a terminal has the client's size", async () => {
    const sizes = async function* (): AsyncGenerator<TerminalSize> {
      yield { width: 0, height: 0 };
      yield { width: 123, height: 45 };
    };
    const script = "while [ \"$(stty size)\" != '45 123' ]; do sleep 0.05; done; stty size; echo $TERM";
    const { code, stdout, stderr } = await exec(sh(script), { tty: true, resize: sizes() });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("45 123\r\nxterm\r\n");
  });

  test("is killed at its time-out", async () => {
    const began = performance.now();
    const failure = await exec(["/bin/sleep", "100"], { timeoutMs: 300 }).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: "DeadlineExceeded",
      message: "timeout 300ms exceeded: context deadline exceeded",
    });
    expect(performance.now() - began).toBeLessThan(5000);
    expect((await given.tasks.listPids(given.scope, "web")).length).toBeLessThanOrEqual(2);
  });

  test("is killed when its caller has gone", async () => {
    const caller = new AbortController();
    const started = Promise.withResolvers<void>();
    const stdout: ByteSink = { write: async () => started.resolve(), end: () => undefined };
    const root = join(given.folder, "exec");
    const running = execInContainer(
      { tasks: given.tasks, logger: silentLogger },
      { ...given.scope, signal: caller.signal },
      {
        ...{ containerId: "web", process, root, tty: false, timeoutMs: 0, drainTimeoutMs: 0 },
        command: sh("echo on; exec sleep 100"),
        streams: { stdout },
      },
    );
    await started.promise;
    caller.abort();
    expect(await running.catch((error: unknown) => error)).toMatchObject({ code: "Canceled" });
  });

  test("children that hold its output open are waited for, or not", async () => {
    expect(await exec(sh("(sleep 0.3; echo late) & echo now"))).toMatchObject({ stdout: "now\nlate\n" });
    const failure = await exec(sh("sleep 100 & echo now"), { drainTimeoutMs: 200 }).catch(
      (error: unknown) => error,
    );
    expect(String(failure)).toMatch(
      /failed to drain exec process "\w+" io in 200ms because io is still held/,
    );
  });

  test("what cannot start tells runc's words", async () => {
    const failure = await exec(["/bin/missing"]).catch((error: unknown) => error);
    expect(String(failure)).toMatch(/failed to start exec "\w{64}".*missing/);
  });

  test("a client that has gone does not hold it up", async () => {
    const root = join(given.folder, "exec");
    const stdout: ByteSink = { write: () => Promise.reject(new Error("gone")), end: () => undefined };
    const code = await execInContainer({ tasks: given.tasks, logger: silentLogger }, given.scope, {
      ...{ containerId: "web", process, root, tty: false, timeoutMs: 0, drainTimeoutMs: 0 },
      command: sh("dd if=/dev/zero bs=100000 count=50 2>/dev/null; exit 4"),
      streams: { stdout },
    });
    expect(code).toBe(4);
  });

  test("many at once leave no descriptor behind", async () => {
    const before = readdirSync("/proc/self/fd").length;
    for (let round = 0; round < 10; round++)
      await Promise.all(Array.from({ length: 4 }, () => exec(["/bin/echo", "x"])));
    await until("descriptors are closed", () => readdirSync("/proc/self/fd").length <= before);
  });
});
