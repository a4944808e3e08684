import { expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, silentLogger } from "../lib/log.ts";
import { openShimLog } from "./shim-log.ts";

test("lines of several writers reach the log by their level; closing leaves no descriptor", async () => {
  const folder = mkdtempSync(join(tmpdir(), "shim-log-"));
  const lines: string[] = [];
  let told = (): void => undefined;
  const at = (level: string) => (_message: string, fields?: Readonly<Record<string, unknown>>) => {
    lines.push(`${level} ${fields?.["line"]}`);
    told();
  };
  const logger: Logger = { ...silentLogger, debug: at("debug"), warn: at("warn"), error: at("error") };
  const log = openShimLog(folder, logger);
  try {
    const path = join(folder, "log");
    const until = async (count: number): Promise<void> => {
      while (lines.length < count) {
        await new Promise<void>((resolve) => {
          told = resolve;
        });
      }
    };
    appendFileSync(path, 'time="now" level=info msg="one"\nlevel=error msg=two\nthr');
    await until(2);
    appendFileSync(path, "ee\n");
    await until(3);
    appendFileSync(path, `${"x".repeat(20_000)}`);
    await until(4);
    expect(lines.slice(0, 3)).toEqual([
      'debug time="now" level=info msg="one"',
      "warn level=error msg=two",
      "debug three",
    ]);
    expect(lines[3]?.length).toBeLessThan(17_000);
  } finally {
    await Promise.all([log.close(), log.close()]);
    rmSync(folder, { recursive: true, force: true });
  }
  // Bun closes its own copy of the descriptor a moment later.
  while (descriptorsBelow(folder).length > 0) await new Promise((resolve) => setImmediate(resolve));
});

function descriptorsBelow(folder: string): string[] {
  const open = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
  return open.filter((path) => path.includes(folder));
}
