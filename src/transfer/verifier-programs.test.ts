import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../test/support/containers.ts";
import { run } from "../../test/support/processes.ts";
import { silentLogger } from "../lib/log.ts";
import { BunkerdError } from "../model/errors.ts";
import { verifierPrograms } from "./verifier-programs.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-verifier-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const target = { mediaType: "application/vnd.oci.image.index.v1+json", digest: "sha256:abc", size: 7 };

function program(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

function judge(options: { maxVerifiers?: number; timeoutMs?: number; signal?: AbortSignal } = {}) {
  const { maxVerifiers = 10, timeoutMs = 5000, signal } = options;
  const verifier = verifierPrograms({ folder, maxVerifiers, timeoutMs }, { logger: silentLogger });
  return verifier.verify("example.org/box:1", target, signal);
}

async function failureOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof BunkerdError)) throw new Error(`not an expected failure: ${String(error)}`);
  return `${error.code}: ${error.message}`;
}

test("no folder and no program: everything is right", async () => {
  expect(await judge()).toEqual({ ok: true, reason: `no image verifier binaries found in ${folder}` });
  rmSync(folder, { recursive: true });
  expect(await judge()).toEqual({ ok: true, reason: `image verifier directory ${folder} does not exist` });
});

test("each program is told the image and its descriptor, in the order of their names", async () => {
  program("b", "echo second");
  const elsewhere = mkdtempSync(join(tmpdir(), "bunkerd-seen-"));
  const seen = join(elsewhere, "seen");
  program("a", `echo "$@"; cat > ${seen}`);
  expect(await judge()).toEqual({
    ok: true,
    reason:
      "a => -name example.org/box:1 -digest sha256:abc -stdin-media-type application/vnd.oci.descriptor.v1+json, b => second",
  });
  expect(JSON.parse(readFileSync(seen, "utf8"))).toEqual(target);
  rmSync(elsewhere, { recursive: true });
});

test("the first that says no ends it", async () => {
  program("a", "echo unsigned; exit 3");
  program("b", `touch ${folder}/called`);
  expect(await judge()).toEqual({ ok: false, reason: "verifier a rejected image (exit code 3): unsigned" });
  expect(existsSync(join(folder, "called"))).toBe(false);
});

test("no more than are allowed are called; a negative number allows all", async () => {
  for (const name of ["a", "b", "c"]) program(name, `echo ${name}`);
  expect((await judge({ maxVerifiers: 2 })).reason).toBe("a => a, b => b");
  expect((await judge({ maxVerifiers: 0 })).reason).toBe("");
  expect((await judge({ maxVerifiers: -1 })).reason).toBe("a => a, b => b, c => c");
});

test("one that takes too long is killed, with what it has started", async () => {
  program("a", `sleep 1000 & echo $! > ${folder}/child; wait`);
  expect(await failureOf(judge({ timeoutMs: 300 }))).toMatch(
    /^DeadlineExceeded: failed to call verifier a: no answer/,
  );
  const child = readFileSync(join(folder, "child"), "utf8").trim();
  // What has been killed may take a moment to die, and longer to be reaped.
  await until("the child's end", async () =>
    /^Z?$/.test((await run(["ps", "-o", "state=", "-p", child])).stdout.trim()),
  );
});

test("a caller that goes ends it", async () => {
  program("a", "sleep 1000");
  expect(await failureOf(judge({ signal: AbortSignal.timeout(100) }))).toBe(
    "Canceled: failed to call verifier a: canceled",
  );
});

test("much output is cut, and does not hold the program up", async () => {
  program("a", "head -c 100000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero >&2");
  const { ok, reason } = await judge();
  expect(ok).toBe(true);
  expect(reason).toMatch(/^a => x{32768}\(stdout truncated\)$/);
});

test("what is no program, and one that is killed, judge nothing", async () => {
  writeFileSync(join(folder, "a"), "text");
  expect(await failureOf(judge())).toMatch(/^Unknown: failed to call verifier a: starting process: /);
  program("a", "kill -9 $$");
  rmSync(join(folder, "a"));
  program("a", "kill -9 $$");
  expect(await failureOf(judge())).toBe("Unknown: failed to call verifier a: signal: SIGKILL");
});
