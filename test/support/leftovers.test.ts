import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { leftIn, newPlace, OwnMachine, wordsOf } from "./leftovers.ts";
import { output, start } from "./processes.ts";

// On a machine with much on it each look takes its time.
setDefaultTimeout(60_000);

test("what a file leaves in its place is named, and what ends by itself is not", async () => {
  const place = newPlace();
  const point = join(place.folder, "mounted");
  mkdirSync(point);
  await output(["mount", "-t", "tmpfs", "tmpfs", point]);
  const env = { ...process.env, ...place.env };
  const child = start(["sleep", "1000"], { env, stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  expect((await leftIn(place, 0)).sort()).toEqual([
    `file ${point}`,
    `mount ${point}`,
    expect.stringMatching(new RegExp(`^process ${child.pid} .*sleep 1000$`)),
  ]);
  await child.exited;
  await output(["umount", point]);
  writeFileSync(join(place.folder, "file"), "");
  setTimeout(() => rmdirSync(point), 50);
  expect(await leftIn(place, 300)).toEqual([`file ${join(place.folder, "file")}`]);
  expect(existsSync(place.folder)).toBe(false);
});

test("what comes to a machine and stays is named after the file that it came with, unless that one failed", async () => {
  const point = join("/dev/shm", `bunkerd-test-${process.pid}`);
  const [machine, excused] = [new OwnMachine(), new OwnMachine()];
  mkdirSync(point);
  machine.after(["a.test.ts", "beside.test.ts"], false);
  machine.after(["b.test.ts"], false);
  excused.after(["a.test.ts"], true);
  const told = async (of: OwnMachine) =>
    (await of.left(0)).map(wordsOf).filter((line) => line.includes(point));
  expect(await told(machine)).toEqual([`file ${point}, first seen after a.test.ts while beside.test.ts ran`]);
  expect(await told(excused)).toEqual([]);
  machine.after(["c.test.ts"], false);
  expect(await told(machine)).toEqual([]);
  rmdirSync(point);
});
