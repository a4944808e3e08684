import { afterEach, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { LATE_NS, restoreTimers, withLateTimers } from "./timer-slack.ts";

const OWN = "/proc/self/timerslack_ns";
const usual = Number(readFileSync(OWN, "utf8"));
const children: Bun.Subprocess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await child.exited;
  }
});

function spawn(args: string[]) {
  const child = Bun.spawn(args, { stdin: "pipe", stdout: "pipe" });
  children.push(child);
  return child;
}

/** Of each of its threads, once. */
function slacksOf(pid: number): number[] {
  const threads = readdirSync(`/proc/${pid}/task`);
  return [...new Set(threads.map((thread) => Number(readFileSync(`/proc/${thread}/timerslack_ns`, "utf8"))))];
}

test("what is started within has late timers, and what is started after it has not", async () => {
  const late = withLateTimers(() => spawn(["cat", OWN]));
  const punctual = spawn(["cat", OWN]);
  expect(Number(await late.stdout.text())).toBe(LATE_NS);
  expect(Number(await punctual.stdout.text())).toBe(usual);
  expect(() => withLateTimers(() => spawn(["/no/such/program"]))).toThrow(/no such file|ENOENT/);
  expect(Number(await spawn(["cat", OWN]).stdout.text())).toBe(usual);
});

const isRoot = process.geteuid?.() === 0;
if (!isRoot) process.stdout.write("skipped: timers of another process: that needs CAP_SYS_NICE\n");

test.skipIf(!isRoot)("all threads of a process are made punctual again, and its children", async () => {
  // It has a thread more, and starts a program when it is told to.
  const program = `const worker = new Worker(URL.createObjectURL(new Blob(["postMessage(1); onmessage = () => {}"])));
    worker.onmessage = () => console.log("ready"); for await (const _ of process.stdin) Bun.spawn(["cat", "${OWN}"], { stdout: "inherit" });`;
  const child = withLateTimers(() => spawn([process.execPath, "-e", program]));
  const reader = child.stdout.getReader();
  await reader.read();
  expect(readdirSync(`/proc/${child.pid}/task`).length).toBeGreaterThan(1);
  expect(slacksOf(child.pid)).toEqual([LATE_NS]);
  restoreTimers(child.pid);
  expect(slacksOf(child.pid)).toEqual([usual]);
  child.stdin.write("go\n");
  child.stdin.flush();
  expect(Number(new TextDecoder().decode((await reader.read()).value))).toBe(usual);
});

test("what is gone is left alone", async () => {
  const ended = spawn(["true"]);
  await ended.exited;
  expect(() => restoreTimers(ended.pid)).not.toThrow();
});

const python = Bun.which("python3");
if (python === null) process.stdout.write("skipped: a slack of its own: no python3 to choose one\n");

test.skipIf(python === null)("what has chosen its own slack keeps it", async () => {
  // prctl(PR_SET_TIMERSLACK, 77000), which libc's programs have no command for.
  const choose = "import ctypes; ctypes.CDLL(None).prctl(29, 77000); print('chosen', flush=True); input()";
  const child = spawn(["python3", "-c", choose]);
  await child.stdout.getReader().read();
  restoreTimers(child.pid);
  expect(slacksOf(child.pid)).toEqual([77_000]);
});
