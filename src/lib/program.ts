/** Programs that are run to their end for what they print. */
import { closeSync } from "node:fs";
import { memoryFile } from "../linux/memfd.ts";
import { withLateTimers } from "../linux/timer-slack.ts";
import { startTimer } from "./timer.ts";

export interface Program {
  /** The program's path and its arguments. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly stdin?: Uint8Array;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** At the deadline or the caller's abort, kill what the program started as well. */
  readonly killGroup?: boolean;
  /** Its timers may be late, and those of all that it starts: see `linux/timer-slack.ts`. */
  readonly lateTimers?: boolean;
}

export interface Finished {
  readonly exitCode: number;
  /** Of the one that ended it. */
  readonly signal: string | null;
  /** Why it was killed, if it was by us. */
  readonly stopped: "deadline" | "caller" | undefined;
  /** At most {@link MAX_OUTPUT_BYTES} of each. */
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

/** What is kept of a program's output. */
export const MAX_OUTPUT_BYTES = 1 << 20;
/** How long output may still come after the program's end: a process that it left may hold the other end open for ever. */
const DRAIN_MS = 100;

/**
 * Runs a program in a session of its own: what it leaves running is no child of the daemon's terminal or process group.
 * @throws ErrnoException if it cannot be started, the signal's reason if that was aborted before
 */
export async function runProgram(program: Program): Promise<Finished> {
  const { args, env, cwd, stdin, timeoutMs, signal, killGroup = false, lateTimers = false } = program;
  signal?.throwIfAborted();
  const begin = () => start(args, { env, ...(cwd === undefined ? {} : { cwd }) }, stdin);
  const child = lateTimers ? withLateTimers(begin) : begin();
  let stopped: Finished["stopped"];
  const stop = (reason: "deadline" | "caller"): void => {
    stopped ??= reason;
    // The leader of a session leads its process group; one that is not reaped yet keeps the group's id its own.
    if (killGroup && child.exitCode === null && child.signalCode === null)
      process.kill(-child.pid, "SIGKILL");
    else child.kill("SIGKILL");
  };
  const timer = startTimer(() => stop("deadline"), timeoutMs);
  const cancel = (): void => stop("caller");
  signal?.addEventListener("abort", cancel);
  try {
    const [stdout, stderr, exitCode] = await Promise.all([
      collect(child.stdout, child.exited),
      collect(child.stderr, child.exited),
      child.exited,
    ]);
    const endedBy = child.signalCode === null ? null : String(child.signalCode);
    return { exitCode, signal: endedBy, stopped, stdout, stderr };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
  }
}

/** The runtime would keep what it gives a program on stdin open until a collection. */
function start(
  args: readonly string[],
  settings: Pick<Program, "env"> & { cwd?: string },
  stdin: Uint8Array | undefined,
) {
  const given = stdin === undefined ? undefined : memoryFile("stdin", stdin);
  try {
    return Bun.spawn([...args], {
      ...settings,
      stdin: given ?? "ignore",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
    });
  } finally {
    if (given !== undefined) closeSync(given);
  }
}

async function collect(stream: ReadableStream<Uint8Array>, exited: Promise<number>): Promise<Uint8Array> {
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const drained = exited.then(
    () =>
      new Promise<"drained">((resolve) => {
        timer = setTimeout(resolve, DRAIN_MS, "drained");
      }),
  );
  for (;;) {
    const result = await Promise.race([reader.read(), drained]);
    if (result === "drained" || result.done) break;
    if (size < MAX_OUTPUT_BYTES) chunks.push(result.value);
    size += result.value.length;
  }
  clearTimeout(timer);
  void reader.cancel().catch(() => undefined);
  return Buffer.concat(chunks).subarray(0, MAX_OUTPUT_BYTES);
}

/** How it ended, as Go words an ExitError: `exit status 1`, `signal: killed`. */
export function endOf({ exitCode, signal }: Finished): string {
  return signal === null ? `exit status ${exitCode}` : `signal: ${SIGNAL_WORDS[signal] ?? signal}`;
}

const SIGNAL_WORDS: Readonly<Record<string, string>> = {
  SIGABRT: "aborted",
  SIGHUP: "hangup",
  SIGINT: "interrupt",
  SIGKILL: "killed",
  SIGSEGV: "segmentation fault",
  SIGTERM: "terminated",
};
