import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../bolt/db.ts";

const MAIN = join(import.meta.dir, "..", "main.ts");
const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

async function database(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-db-"));
  folders.push(folder);
  const path = join(folder, "meta.db");
  const db = Db.open(path, { syncFreelist: true });
  await db.update((tx) => tx.createBucket("v1").put("key", new Uint8Array(10_000)));
  await db.close();
  return path;
}

/** Exit code, standard output and standard error of `bunkerd db …`. */
async function bunkerdDb(...args: string[]): Promise<[code: number, output: string, errors: string]> {
  const child = Bun.spawn([process.execPath, MAIN, "db", ...args], { stdout: "pipe", stderr: "pipe" });
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return [await child.exited, output, errors];
}

test("check tells what is wrong, and by its exit code that something is", async () => {
  const path = await database();
  expect(await bunkerdDb("check", path)).toEqual([0, `${path}: OK\n`, ""]);
  const bytes = readFileSync(path);
  const freelist = bytes.readUInt32LE(4096 * (bytes.readUInt32LE(64) % 2) + 48);
  // The freelist forgets one page.
  const at = freelist * 4096 + 10;
  bytes.writeUInt16LE(bytes.readUInt16LE(at) - 1, at);
  writeFileSync(path, bytes);
  const [code, output] = await bunkerdDb("check", path);
  expect(code).toBe(1);
  expect(output).toMatch(/^page \d+: unreachable unfreed\n/);
  expect(output).toEndWith(`${path}: 1 problems\n`);
});

test("pages lists, compact and backup copy to what is not there yet", async () => {
  const path = await database();
  const [code, output] = await bunkerdDb("pages", path);
  expect(code).toBe(0);
  expect(output).toStartWith(
    "ID       TYPE       ITEMS  OVRFLW\n0        meta       0\n1        meta       0\n",
  );
  expect(output).toMatch(/leaf {7}1 {6}2\n/);
  for (const command of ["compact", "backup"]) {
    expect(await bunkerdDb(command, path, `${path}.${command}`)).toMatchObject([0, expect.any(String), ""]);
    expect((await bunkerdDb("check", `${path}.${command}`))[1]).toBe(`${path}.${command}: OK\n`);
    const again = await bunkerdDb(command, path, `${path}.${command}`);
    expect(again).toEqual([1, "", `bunkerd: file "${path}.${command}": already exists\n`]);
  }
});

test("an open database is left alone", async () => {
  const path = await database();
  const db = Db.open(path);
  const [code, , errors] = await bunkerdDb("check", path);
  await db.close();
  expect(code).toBe(1);
  expect(errors).toContain(`database "${path}" is locked by process ${process.pid}`);
});
