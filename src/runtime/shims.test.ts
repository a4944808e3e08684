import { expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { createBundle } from "./bundle.ts";
import { Shims, type ShimsDependencies } from "./shims.ts";

const TIMEOUTS = { taskStateMs: 1000, shimLoadMs: 1000, shimCleanupMs: 1000, shimShutdownMs: 1000 };

/** Processes that were started in a folder. */
function startedIn(folder: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/cwd`) === folder;
    } catch {
      return false;
    }
  });
}

test.each([
  ["speaks what nobody here does", `{"version":3,"address":"unix:///run/none","protocol":"pigeon"}`, ":"],
  [
    "cannot be kept for the next daemon",
    `{"version":3,"address":"unix:///run/none","protocol":"ttrpc"}`,
    "mkdir .bootstrap.json",
  ],
])("of a shim that %s nothing stays", async (_name, answer, before) => {
  const folder = mkdtempSync(join(tmpdir(), "shims-"));
  try {
    const program = join(folder, "containerd-shim-odd-v1");
    writeFileSync(
      program,
      `#!/bin/sh\ncat >/dev/null\n${before}\nsleep 1000 </dev/null >/dev/null 2>&1 &\necho '${answer}'\n`,
    );
    chmodSync(program, 0o755);
    const settings = {
      ...{ address: join(folder, "d.sock"), ttrpcAddress: join(folder, "d.sock.ttrpc") },
      ...{ publishBinary: "/bin/true", version: "0", socketDir: folder, env: [], debug: false },
    };
    const folders = { state: join(folder, "state"), root: join(folder, "root") };
    // Neither is asked for a container that has no sandbox.
    const stores = {} as Pick<ShimsDependencies, "containers" | "sandboxes">;
    const publisher = { publish: () => undefined };
    const shims = new Shims(
      { folders, settings, timeouts: TIMEOUTS },
      { ...stores, publisher, clock: systemClock(), logger: silentLogger },
    );
    const bundle = await createBundle(folders, "default", "one", undefined);
    const options = { runtime: program, options: undefined, sandboxId: "", address: "", version: 0 };
    const failure = await shims
      .start({ namespace: "default" }, bundle, options)
      .then(() => "started", String);
    expect(failure).toMatch(/not implemented|EISDIR/);
    expect(shims.get("default", "one")).toBeUndefined();
    expect(startedIn(bundle.path)).toEqual([]);
  } finally {
    for (const pid of startedIn(join(folder, "state/default/one"))) process.kill(Number(pid), "SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
});
