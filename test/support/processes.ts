/** Processes and folders that a test starts: none outlives the test, even if the test process is killed. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const children = new Set<Bun.Subprocess>();
let janitor: Bun.Subprocess<"pipe", "ignore", "ignore"> | undefined;

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/**
 * Reads folders, a line each, and removes them when its input ends: when we do, however that comes about. What is mounted
 * in them is unmounted first, or left alone with them: what lies behind a mount is not ours.
 */
const SWEEP = `
  while read -r path; do set -- "$@" "$path"; done
  mounts() { awk -v below="$1/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts; }
  for path; do
    mounts "$path" | sort -r | xargs -r umount --lazy
    [ -n "$(mounts "$path")" ] || rm -rf --one-file-system "$path" || { sleep 1; rm -rf --one-file-system "$path"; }
  done`;

/** `bun test` ends without an exit event, and may be killed: a process of its own session does what is left to do. */
function sweepAtEnd(folder: string): void {
  if (janitor === undefined) {
    janitor = Bun.spawn(["setsid", "sh", "-c", SWEEP], { stdin: "pipe", stdout: "ignore", stderr: "ignore" });
    janitor.unref();
  }
  janitor.stdin.write(`${folder}\n`);
  void janitor.stdin.flush();
}

/** An empty folder with a short name (a socket's path has 107 bytes), removed when the test process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "bkt-"));
  sweepAtEnd(folder);
  return folder;
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** SIGKILL to a process that may have ended. */
export function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Starts a process that the kernel kills when we die. Output goes to files or pipes as Bun.spawn's options say. */
export function start<
  const In extends Bun.SpawnOptions.Writable,
  const Out extends Bun.SpawnOptions.Readable,
  const Err extends Bun.SpawnOptions.Readable,
>(
  command: readonly string[],
  options: Bun.SpawnOptions.OptionsObject<In, Out, Err>,
): Bun.Subprocess<In, Out, Err> {
  const child = Bun.spawn(["setpriv", "--pdeathsig", "KILL", "--", ...command], options);
  children.add(child);
  void child.exited.then(() => children.delete(child));
  return child;
}

/** Runs a command to its end. A code other than 0 is a result, not an error. */
export async function run(
  command: readonly string[],
  options: { env?: Record<string, string>; stdin?: string | Uint8Array; cwd?: string } = {},
): Promise<Finished> {
  const child = start(command, {
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** Runs a command that must succeed; returns what it printed. @throws with its output otherwise */
export async function output(
  command: readonly string[],
  options: Parameters<typeof run>[1] = {},
): Promise<string> {
  const result = await run(command, options);
  if (result.code !== 0) {
    throw new Error(`${command.join(" ")} exited ${result.code}: ${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

/** Yields a stream's lines as they come. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
}
