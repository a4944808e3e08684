/** FIFOs with this process as the shim: it writes to their other end without waiting. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { until } from "../../../test/support/containers.ts";
import { removeFolder, temporaryFolder } from "../../../test/support/processes.ts";
import { systemClock } from "../../lib/clock.ts";
import { type LogFields, type Logger, silentLogger } from "../../lib/log.ts";
import type { ByteSink } from "./attachment.ts";
import { ContainerIo } from "./container-io.ts";

const WRITE = constants.O_WRONLY | constants.O_NONBLOCK;
const clock = systemClock();
let folder = "";

beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(async () => {
  // Bun closes its own descriptors a moment after ours.
  await until(
    () => `closed: ${openBelow(folder)}`,
    () => openBelow(folder).length === 0,
  );
  removeFolder(folder);
});

function openBelow(path: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith(path) ? [target] : [];
    } catch {
      return [];
    }
  });
}

interface Given {
  readonly tty?: boolean;
  readonly stdin?: boolean;
  readonly stdinOnce?: boolean;
  readonly logger?: Logger;
}

function make({ tty = false, stdin = false, stdinOnce = false, logger = silentLogger }: Given = {}) {
  return ContainerIo.create({ id: "c1", root: folder, tty, stdin, stdinOnce }, { clock, logger });
}

/** The log without times. */
const logOf = (path: string): string =>
  readFileSync(path, "utf8").replaceAll(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z /gm, "");

/** A client that keeps what it gets; `gate` holds it up. */
function client(gate: Promise<void> = Promise.resolve()) {
  const got: Uint8Array[] = [];
  let ended = false;
  const sink: ByteSink = {
    async write(bytes) {
      await gate;
      got.push(bytes);
    },
    end() {
      ended = true;
    },
  };
  return { sink, text: () => Buffer.concat(got).toString(), ended: () => ended };
}

/** Writes all of it as a pipe takes it. */
async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const wrote = tryWrite(fd, bytes.subarray(at));
    at += wrote;
    if (wrote === 0) await Bun.sleep(1);
  }
}

function tryWrite(fd: number, bytes: Uint8Array): number {
  try {
    return writeSync(fd, bytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
    throw error;
  }
}

/** Whether a FIFO has nothing more and no writer; EAGAIN while it has one. */
function endsNow(fd: number): boolean {
  try {
    return readSync(fd, Buffer.alloc(1)) === 0;
  } catch {
    return false;
  }
}

const noStdin = async (): Promise<void> => undefined;

describe("ContainerIo", () => {
  test("FIFOs stand where the reference has them, and go", async () => {
    const io = make({ stdin: true });
    expect(io.stdio.stdout).toMatch(new RegExp(`^${folder}/io/\\d+/c1-stdout$`));
    expect(readdirSync(dirname(io.stdio.stdout)).sort()).toEqual(["c1-stderr", "c1-stdin", "c1-stdout"]);
    await io.close();
    expect(readdirSync(join(folder, "io"))).toEqual([]);
    const tty = make({ tty: true });
    expect(tty.stdio.stdin).toBe("");
    expect(readdirSync(dirname(tty.stdio.stdout))).toEqual(["c1-stdout"]);
    await tty.close();
  });

  test("both outputs go to one log, to the last byte", async () => {
    const io = make();
    const path = join(folder, "logs/made for it/0.log");
    await io.openLog(path, 16);
    io.start();
    const [out, err] = [openSync(io.stdio.stdout, WRITE), openSync(io.stdio.stderr, WRITE)];
    io.writerCame();
    writeSync(out, "one\ntwo\n");
    writeSync(err, "complaint of more than sixteen\n");
    closeSync(err);
    writeSync(out, "no newline");
    closeSync(out);
    await io.drained();
    const lines = logOf(path).split("\n");
    expect(lines.filter((line) => line.startsWith("stdout"))).toEqual([
      "stdout F one",
      "stdout F two",
      "stdout P no newline",
    ]);
    expect(lines.filter((line) => line.startsWith("stderr"))).toEqual([
      "stderr P complaint of mor",
      "stderr F e than sixteen",
    ]);
    await io.close();
  });

  test("an output does not end before its writer has come", async () => {
    const io = make({ tty: true });
    const path = join(folder, "0.log");
    await io.openLog(path, -1);
    io.start();
    const first = openSync(io.stdio.stdout, WRITE);
    writeSync(first, "early\n");
    closeSync(first);
    const second = openSync(io.stdio.stdout, WRITE);
    io.writerCame();
    writeSync(second, "late\n");
    closeSync(second);
    await io.drained();
    expect(logOf(path)).toBe("stdout F early\nstdout F late\n");
    await io.close();
  });

  test("rotation: no line is lost, cut or written twice", async () => {
    const io = make({ tty: true });
    const path = join(folder, "0.log");
    await io.openLog(path, 1024);
    io.start();
    const out = openSync(io.stdio.stdout, WRITE);
    io.writerCame();
    let turns = 0;
    for (let line = 0; line < 20_000; line++) {
      await writeAll(out, Buffer.from(`line ${line}\n`));
      if (line % 2000 === 1999) {
        renameSync(path, join(folder, `rotated.${turns++}`));
        await io.reopenLog();
      }
    }
    closeSync(out);
    await io.drained();
    await io.close();
    const files = [...Array.from({ length: turns }, (_, turn) => `rotated.${turn}`), "0.log"];
    const lines = files.map((name) => logOf(join(folder, name))).join("");
    expect(lines).toBe(Array.from({ length: 20_000 }, (_, line) => `stdout F line ${line}\n`).join(""));
    expect(turns).toBe(10);
  });

  test("a new daemon goes on where the last one stopped", async () => {
    const path = join(folder, "0.log");
    const before = make({ tty: true });
    await before.openLog(path, 4096);
    before.start();
    // As the shim has it: the FIFO outlives its readers.
    const shim = openSync(before.stdio.stdout, constants.O_RDWR | constants.O_NONBLOCK);
    before.writerCame();
    let wrote = 0;
    const write = (): void => {
      const line = `${String(wrote).padStart(99)}\n`;
      if (tryWrite(shim, Buffer.from(line)) > 0) wrote++;
    };
    // Much is on its way when it stops: in the pipe, in Bun's memory, in the queue to the disk.
    for (let round = 0; round < 50; round++) {
      for (let line = 0; line < 600; line++) write();
      await Bun.sleep(0);
    }
    for (let line = 0; line < 600; line++) write();
    const released = before.release();
    for (let line = 0; line < 600; line++) write();
    await released;
    const left = logOf(path);
    for (let line = 0; line < 100; line++) write();
    expect(logOf(path)).toBe(left);

    const after = ContainerIo.reopen(
      before.stdio,
      { id: "c1", stdinOnce: false },
      { clock, logger: silentLogger },
    );
    await after.openLog(path, 4096);
    after.start();
    after.writerCame();
    closeSync(shim);
    await after.drained();
    const expected = Array.from({ length: wrote }, (_, line) => `stdout F ${String(line).padStart(99)}\n`);
    // A line that the stop cut is in two pieces.
    expect(logOf(path).replaceAll(/^stdout P (.*)\nstdout F /gm, "stdout F $1")).toBe(expected.join(""));
    await after.close();
  });

  test("a disk that is slow holds up the writer, and memory stays small", async () => {
    const io = make({ tty: true });
    // A FIFO for the log: it takes nothing until it is read.
    const path = join(folder, "slow.log");
    Bun.spawnSync(["mkfifo", path]);
    const disk = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    await io.openLog(path, 4096);
    io.start();
    const out = openSync(io.stdio.stdout, WRITE);
    io.writerCame();
    const chunk = Buffer.from(`${"x".repeat(1023)}\n`.repeat(16));
    let taken = 0;
    for (let idle = 0; idle < 50; ) {
      const wrote = tryWrite(out, chunk);
      taken += wrote;
      idle = wrote === 0 ? idle + 1 : 0;
      if (wrote === 0) await Bun.sleep(2);
    }
    expect(taken).toBeLessThan(2 << 20);
    closeSync(out);
    // The disk comes back: all is there.
    let written = 0;
    const buffer = Buffer.alloc(1 << 20);
    let drained = false;
    const draining = io.drained().then(() => {
      drained = true;
    });
    while (!drained) {
      try {
        written += readSync(disk, buffer);
      } catch {
        await Bun.sleep(1);
      }
    }
    await draining;
    try {
      written += readSync(disk, buffer);
    } catch {
      // Empty.
    }
    expect(written).toBe((taken / 1024) * (1024 + "2026-01-01T00:00:00.000000000Z stdout F ".length));
    closeSync(disk);
    await io.close();
  });

  test("a full disk is told of once, and the container goes on", async () => {
    const told: [string, LogFields | undefined][] = [];
    const logger: Logger = {
      ...silentLogger,
      error: (message, fields) => told.push([message, fields]),
      with: () => logger,
    };
    const io = make({ tty: true, logger });
    await io.openLog("/dev/full", 4096);
    io.start();
    const out = openSync(io.stdio.stdout, WRITE);
    io.writerCame();
    const attached = client();
    const attaching = io.attach({ stdout: attached.sink, closeStdin: noStdin });
    for (let line = 0; line < 20; line++) {
      writeSync(out, `line ${line}\n`);
      await Bun.sleep(1);
    }
    closeSync(out);
    await io.drained();
    await attaching;
    await io.close();
    expect(told.map(([message]) => message)).toEqual([
      "write container log: lines are lost until it can be written again",
    ]);
    expect(told[0]?.[1]).toMatchObject({ path: "/dev/full", error: expect.stringContaining("ENOSPC") });
    expect(attached.text()).toContain("line 19");
  });

  test("clients get what comes; one that does not read is cut off, and nobody waits for it", async () => {
    const io = make({ tty: true });
    const path = join(folder, "0.log");
    await io.openLog(path, 1 << 16);
    io.start();
    const out = openSync(io.stdio.stdout, WRITE);
    io.writerCame();
    const [quick, stuck] = [client(), client(new Promise<void>(() => undefined))];
    const quickDone = io.attach({ stdout: quick.sink, closeStdin: noStdin });
    const stuckDone = io.attach({ stdout: stuck.sink, closeStdin: noStdin });
    const stuckFailed = stuckDone.then(
      () => "nothing",
      (error: Error) => error.message,
    );
    const line = Buffer.from(`${"y".repeat(9999)}\n`);
    for (let round = 0; round < 600; round++) await writeAll(out, line);
    closeSync(out);
    await io.drained();
    await quickDone;
    expect(await stuckFailed).toMatch(/reads too slowly.*resource exhausted/);
    expect(quick.text().length).toBe(600 * 10_000);
    expect(quick.ended()).toBe(true);
    expect(logOf(path).length).toBe(600 * ("stdout F ".length + 10_000));
    await io.close();
  });

  test("a client that goes leaves the others and the log alone", async () => {
    const io = make();
    io.start();
    const [out, err] = [openSync(io.stdio.stdout, WRITE), openSync(io.stdio.stderr, WRITE)];
    io.writerCame();
    const gone = new AbortController();
    const [first, second] = [client(), client()];
    const firstDone = io.attach({ stdout: first.sink, closeStdin: noStdin, signal: gone.signal });
    const secondDone = io.attach({ stdout: second.sink, stderr: second.sink, closeStdin: noStdin });
    gone.abort();
    await firstDone;
    expect(first.ended()).toBe(true);
    writeSync(out, "later\n");
    writeSync(err, "too\n");
    closeSync(out);
    closeSync(err);
    await secondDone;
    expect(first.text()).toBe("");
    expect(second.text().split("\n").sort()).toEqual(["", "later", "too"]);
    await io.drained();
    const late = client();
    await io.attach({ stdout: late.sink, closeStdin: noStdin });
    expect(late.ended()).toBe(true);
    await io.close();
  });
});

describe("stdin", () => {
  async function* bytesOf(...texts: string[]): AsyncGenerator<Uint8Array> {
    for (const text of texts) yield Buffer.from(text);
  }

  /** Attaches a client with that stdin, and reads as the shim does. */
  async function attachStdin(given: Given, stdin: AsyncIterable<Uint8Array>) {
    const io = make({ ...given, stdin: true });
    const shim = openSync(io.stdio.stdin, constants.O_RDONLY | constants.O_NONBLOCK);
    const outputs = [openSync(io.stdio.stdout, constants.O_RDWR | constants.O_NONBLOCK)];
    if (!given.tty) outputs.push(openSync(io.stdio.stderr, constants.O_RDWR | constants.O_NONBLOCK));
    io.start();
    io.writerCame();
    const told: string[] = [];
    const { sink, ended } = client();
    const done = io.attach({
      stdin,
      stdout: sink,
      async closeStdin() {
        told.push("closeStdin");
        for (const fd of outputs) closeSync(fd);
      },
    });
    return { io, shim, outputs, told, ended, done };
  }

  test("goes to the container; the last byte closes it where it is once", async () => {
    const { io, shim, told, done } = await attachStdin({ stdinOnce: true }, bytesOf("hello ", "world"));
    await done;
    expect(told).toEqual(["closeStdin"]);
    const buffer = Buffer.alloc(64);
    expect(buffer.toString("utf8", 0, readSync(shim, buffer))).toBe("hello world");
    await until("the end of stdin", () => endsNow(shim));
    closeSync(shim);
    await io.close();
    expect(existsSync(io.stdio.stdin)).toBe(false);
  });

  test.each([
    ["stays open where it is not once", {}],
    ["stays open on a terminal", { tty: true, stdinOnce: true }],
  ] as const)("%s, and the client is let go", async (_name, given) => {
    const { io, shim, outputs, told, ended, done } = await attachStdin(given, bytesOf("x"));
    await done;
    expect(ended()).toBe(true);
    expect(told).toEqual([]);
    const buffer = Buffer.alloc(64);
    expect(readSync(shim, buffer)).toBe(1);
    expect(() => readSync(shim, buffer)).toThrow("EAGAIN");
    closeSync(shim);
    for (const fd of outputs) closeSync(fd);
    await io.close();
  });

  test("a container that reads slowly holds its client up", async () => {
    let given = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (; given < 500; given++) yield new Uint8Array(10_000);
    }
    const { io, shim, told, done } = await attachStdin({ stdinOnce: true }, endless());
    await Bun.sleep(100);
    expect(given).toBeLessThan(20);
    let read = 0;
    const buffer = Buffer.alloc(1 << 16);
    while (read < 5_000_000) {
      try {
        read += readSync(shim, buffer);
      } catch {
        await Bun.sleep(1);
      }
    }
    await done;
    expect(told).toEqual(["closeStdin"]);
    closeSync(shim);
    await io.close();
  });
});
