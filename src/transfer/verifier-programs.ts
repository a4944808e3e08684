import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { formatDuration } from "../lib/duration.ts";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, fail, messageOf, quote } from "../model/errors.ts";
import type { ImageVerifier, Judgement } from "../model/image-verifiers.ts";
import { descriptorJson, goJson, type OciDescriptor } from "../model/oci.ts";

const DESCRIPTOR_TYPE = "application/vnd.oci.descriptor.v1+json";
const MAX_OUTPUT_BYTES = 32 << 10;

export interface VerifierProgramsOptions {
  /** Its files are called in the order of their names; without it everything is right. */
  readonly folder: string;
  /** How many are called; negative: all. */
  readonly maxVerifiers: number;
  /** Of each. */
  readonly timeoutMs: number;
}

/**
 * Asks the programs of a folder (containerd `pkg/imageverifier/bindir`): each is told `-name`, `-digest` and, by its input, the descriptor; it
 * exits 0 if the image may be pulled and says on its output why.
 */
export function verifierPrograms(
  options: VerifierProgramsOptions,
  { logger }: { readonly logger: Logger },
): ImageVerifier {
  const { folder, maxVerifiers } = options;
  return {
    name: "bindir",
    async verify(image, target, signal) {
      const names = await programsIn(folder);
      if (names === undefined) return right(`image verifier directory ${folder} does not exist`);
      if (names.length === 0) return right(`no image verifier binaries found in ${folder}`);
      const called = maxVerifiers < 0 ? names : names.slice(0, maxVerifiers);
      if (called.length < names.length) {
        const counts = { folder, programs: names.length, maxVerifiers };
        logger.warn("image verifiers are being skipped: there are more than configured", counts);
      }
      const reasons: string[] = [];
      for (const name of called) {
        const { code, reason } = await run(name, options, image, target, logger, signal);
        if (code !== 0)
          return { ok: false, reason: `verifier ${name} rejected image (exit code ${code}): ${reason}` };
        reasons.push(`${name} => ${reason}`);
      }
      return right(reasons.join(", "));
    },
  };
}

function right(reason: string): Judgement {
  return { ok: true, reason };
}

async function programsIn(folder: string): Promise<string[] | undefined> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new BunkerdError("Unknown", `failed to list directory contents: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** @throws DeadlineExceeded, Canceled, Unknown if it cannot be started or is killed */
async function run(
  name: string,
  { folder, timeoutMs }: VerifierProgramsOptions,
  image: string,
  target: OciDescriptor,
  logger: Logger,
  signal: AbortSignal | undefined,
): Promise<{ code: number; reason: string }> {
  const args = ["-name", image, "-digest", target.digest, "-stdin-media-type", DESCRIPTOR_TYPE];
  const what = `failed to call verifier ${name}`;
  const child = start([join(folder, name), ...args], goJson(descriptorJson(target)), what);
  const limit = AbortSignal.timeout(timeoutMs);
  const ended = signal === undefined ? limit : AbortSignal.any([signal, limit]);
  const kill = (): void => killGroup(child.pid);
  ended.addEventListener("abort", kill, { once: true });
  if (ended.aborted) kill();
  try {
    const [stdout, stderr] = await Promise.all([
      readSome(child.stdout, ended),
      readSome(child.stderr, ended),
    ]);
    const code = await child.exited;
    for (const line of stderr.text.split("\n")) if (line !== "") logger.debug(line, { verifier: name });
    if (limit.aborted)
      throw fail("DeadlineExceeded", `${what}: no answer within ${formatDuration(timeoutMs)}`);
    if (signal?.aborted === true) throw fail("Canceled", what);
    if (child.signalCode !== null) throw new BunkerdError("Unknown", `${what}: signal: ${child.signalCode}`);
    return { code, reason: `${stdout.text.trim()}${stdout.isCut ? "(stdout truncated)" : ""}` };
  } finally {
    ended.removeEventListener("abort", kill);
    // What it has started must not stay.
    kill();
  }
}

function start(args: string[], input: string, what: string) {
  try {
    const stdin = Buffer.from(`${input}\n`);
    return Bun.spawn(args, { stdin, stdout: "pipe", stderr: "pipe", detached: true });
  } catch (error) {
    throw new BunkerdError("Unknown", `${what}: starting process: ${messageOf(error)}`, { cause: error });
  }
}

/** The program leads a group of its own. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Reads to the end, or until `ended`, and keeps the beginning. */
async function readSome(
  stream: ReadableStream<Uint8Array>,
  ended: AbortSignal,
): Promise<{ text: string; isCut: boolean }> {
  const reader = stream.getReader();
  const stop = (): void => void reader.cancel();
  ended.addEventListener("abort", stop, { once: true });
  const parts: Uint8Array[] = [];
  let keptBytes = 0;
  let isCut = false;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      const kept = next.value.subarray(0, MAX_OUTPUT_BYTES - keptBytes);
      isCut ||= kept.length < next.value.length;
      keptBytes += kept.length;
      if (kept.length > 0) parts.push(kept);
    }
  } finally {
    ended.removeEventListener("abort", stop);
  }
  return { text: quoteLines(Buffer.concat(parts).toString()), isCut };
}

/** A program's words go into logs and messages: a control character must not. */
function quoteLines(text: string): string {
  return text
    .split("\n")
    .map((line) => (/[^\P{Cc}\t]/u.test(line) ? quote(line) : line))
    .join("\n");
}
