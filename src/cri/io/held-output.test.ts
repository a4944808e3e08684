import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, constants, openSync, readSync, renameSync, symlinkSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { openFiles } from "../../../test/support/open-files.ts";
import { removeFolder, temporaryFolder } from "../../../test/support/processes.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { containerPaths } from "../paths.ts";
import { HeldOutput } from "./held-output.ts";
import { makeStdio } from "./stdio.ts";

let folder = "";
const folders = () => ({ root: join(folder, "root"), state: join(folder, "state") });

beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => removeFolder(folder));

function make(id: string, tty = false) {
  return makeStdio({ id, root: containerPaths(folders(), id).state, tty, stdin: true });
}

test("what is written while nobody else has a FIFO open is there for the next reader", () => {
  const [plain, terminal] = [make("plain"), make("terminal", true)];
  const held = new HeldOutput(folders(), silentLogger);
  const outputs = [plain.stdout, plain.stderr, terminal.stdout];
  expect(outputs.map((path) => openFiles(path))).toEqual([1, 1, 1]);
  expect(openFiles(folder)).toBe(3);
  for (const path of outputs) {
    const shim = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    writeSync(shim, "last");
    closeSync(shim);
  }
  const readers = outputs.map((path) => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  held.close();
  const buffer = Buffer.alloc(8);
  for (const reader of readers) {
    expect(readSync(reader, buffer)).toBe(4);
    expect(readSync(reader, buffer)).toBe(0);
    closeSync(reader);
  }
  expect(openFiles(folder)).toBe(0);
});

test("without containers there is nothing to hold; what is no FIFO is not opened, and that is told once", () => {
  const told: unknown[] = [];
  const logger: Logger = { ...silentLogger, warn: (...words) => told.push(words) };
  new HeldOutput(folders(), logger).close();
  expect(told).toEqual([]);
  make("first");
  const { stdout } = make("linked");
  renameSync(stdout, join(dirname(stdout), "elsewhere"));
  symlinkSync("elsewhere", stdout);
  new HeldOutput(folders(), logger);
  expect(told).toEqual([
    [expect.stringMatching(/^failed to hold/), { error: expect.stringContaining("ELOOP") }],
  ]);
  expect(openFiles(folder)).toBe(0);
});
