/**
 * How late a thread's timers may fire, so that they fire together: prctl(2), PR_SET_TIMERSLACK, and proc(5), timerslack_ns. Children have their
 * parent's. Go's runtime sleeps 20 µs, again and again, to look after its goroutines while a program starts; with the usual 50 µs of slack these
 * wakings are a seventh of what starting containers takes where processors are short.
 */
import { dlopen, FFIType } from "bun:ffi";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const PR_SET_TIMERSLACK = 29;
const PR_GET_TIMERSLACK = 30;
const CAP_SYS_NICE = 23;

/** A millisecond, and three nanoseconds by which it is known for ours. */
export const LATE_NS = 1_000_003;

function openLibc() {
  return dlopen("libc.so.6", {
    prctl: { args: [FFIType.i32, FFIType.u64], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;
let usualNs: number | undefined;
let mayRestore: boolean | undefined;

/** Runs what starts a program, whose timers may then be {@link LATE_NS} late; its threads and children have that of it. */
export function withLateTimers<T>(start: () => T): T {
  libc ??= openLibc();
  const usual = usualSlackNs(libc);
  libc.prctl(PR_SET_TIMERSLACK, LATE_NS);
  try {
    return start();
  } finally {
    libc.prctl(PR_SET_TIMERSLACK, usual);
  }
}

/** This thread's own. */
function usualSlackNs({ prctl }: ReturnType<typeof openLibc>): number {
  usualNs ??= prctl(PR_GET_TIMERSLACK, 0);
  return usualNs;
}

/** True if others' timers can be made punctual again, which needs CAP_SYS_NICE. */
export function canRestoreTimers(): boolean {
  mayRestore ??= hasCapability(CAP_SYS_NICE);
  return mayRestore;
}

function hasCapability(number: number): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> BigInt(number)) & 1n) === 1n;
}

/**
 * Gives all threads of a process that was started with late timers this thread's slack; any other process keeps its own, and one that is gone
 * is left alone. @throws ErrnoException EPERM without CAP_SYS_NICE
 */
export function restoreTimers(pid: number): void {
  if (slackOf(pid) !== LATE_NS) return;
  libc ??= openLibc();
  const usual = String(usualSlackNs(libc));
  const seen = new Set<string>();
  // The first thread last: while it is late the process is known for one that is not through. A thread that is late may have made others meanwhile.
  for (let before = -1; before < seen.size; ) {
    before = seen.size;
    const threads = unlessGone(() => readdirSync(`/proc/${pid}/task`)) ?? [];
    for (const thread of threads.reverse()) {
      if (seen.has(thread)) continue;
      seen.add(thread);
      // A thread's folder is reached by its number, though no list has it (proc(5)).
      if (Number(thread) !== pid) setSlack(thread, usual);
    }
  }
  setSlack(String(pid), usual);
}

/** Undefined of a process that is gone. */
function slackOf(pid: number): number | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/timerslack_ns`, "utf8"));
  return text === undefined ? undefined : Number(text);
}

function setSlack(thread: string, text: string): void {
  unlessGone(() => writeFileSync(`/proc/${thread}/timerslack_ns`, text, { flag: "r+" }));
}

/** One that ends while it is looked at answers ESRCH. */
function unlessGone<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return undefined;
    throw error;
  }
}
