import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killAbandonedStart } from "./abandoned.ts";

test("what runs in the bundle is killed, and nothing else", async () => {
  const path = mkdtempSync(join(tmpdir(), "abandoned-"));
  const bundle = { namespace: "default", id: "web", path, work: "" };
  const sleep = (cwd: string) => Bun.spawn(["sleep", "1000"], { cwd });
  const other = sleep(tmpdir());
  const abandoned = [sleep(path), sleep(path)];
  try {
    expect(await killAbandonedStart(bundle)).toBe(2);
    for (const child of abandoned) {
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
    }
    expect(await killAbandonedStart(bundle)).toBe(0);
    expect(other.killed || other.exitCode !== null).toBe(false);
  } finally {
    for (const child of [other, ...abandoned]) child.kill("SIGKILL");
    rmSync(path, { recursive: true, force: true });
  }
});
