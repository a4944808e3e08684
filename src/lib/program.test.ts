import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openFiles } from "../../test/support/open-files.ts";
import { endOf, runProgram } from "./program.ts";

const shell = (script: string) => ({
  args: ["/bin/sh", "-c", script],
  env: { PATH: "/usr/bin:/bin" },
  timeoutMs: 20_000,
});
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

test("a program's output, exit code and signal are told", async () => {
  const finished = await runProgram({ ...shell("cat; echo no >&2; exit 3"), stdin: Buffer.from("input") });
  expect([text(finished.stdout), text(finished.stderr), endOf(finished), finished.stopped]).toEqual([
    "input",
    "no\n",
    "exit status 3",
    undefined,
  ]);
  expect(endOf(await runProgram(shell("kill -TERM $$")))).toBe("signal: terminated");
});

test("nothing of a program's stdin stays open", async () => {
  const before = openFiles("/memfd:");
  await Promise.all(
    Array.from({ length: 8 }, () => runProgram({ ...shell("cat"), stdin: Buffer.from("input") })),
  );
  expect(openFiles("/memfd:")).toBe(before);
});

test("a child that holds the output open does not hold up the answer", async () => {
  const finished = await runProgram(shell("sleep 600 & echo $!"));
  process.kill(Number(text(finished.stdout)), "SIGKILL");
  expect(finished.exitCode).toBe(0);
});

test("at the deadline and at the caller's abort the whole group is killed", async () => {
  const script = "sleep 600 & echo $!; wait";
  const late = await runProgram({ ...shell(script), timeoutMs: 300, killGroup: true });
  const controller = new AbortController();
  const aborted = runProgram({ ...shell(script), signal: controller.signal, killGroup: true });
  controller.abort();
  expect([late.stopped, endOf(late), (await aborted).stopped]).toEqual([
    "deadline",
    "signal: killed",
    "caller",
  ]);
  const child = Number(text(late.stdout));
  expect(child).toBeGreaterThan(1);
  await gone(child);
});

test("what is no program is an error, and so is a call that was aborted before", async () => {
  expect(runProgram({ args: ["/nonexistent"], env: {}, timeoutMs: 1000 })).rejects.toMatchObject({
    code: "ENOENT",
  });
  expect(runProgram({ ...shell("true"), signal: AbortSignal.abort(new Error("gone")) })).rejects.toThrow(
    "gone",
  );
});

/** Killed processes go as soon as somebody has read their exit status. */
async function gone(pid: number): Promise<void> {
  const alive = (): boolean => {
    try {
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false;
    }
  };
  while (alive()) await Bun.sleep(5);
}
