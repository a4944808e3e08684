import { closeSync } from "node:fs";
import { toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { memoryFile } from "../linux/memfd.ts";
import { BunkerdError } from "../model/errors.ts";
import type { StreamProcessor } from "./processing.ts";

/** What of a program's complaint is repeated. */
const MAX_STDERR_BYTES = 16 << 10;

type Program = Bun.Subprocess<"pipe", "pipe", "pipe">;

/**
 * The bytes that a program makes of `pieces`: these are its standard input, its output is the result, the payload comes by
 * descriptor 3, and `STREAM_PROCESSOR_MEDIATYPE` says what it is given (containerd `core/diff/stream_unix.go`).
 * By `Bun.spawn`: reading the output of `node:child_process` slowly loses its end under Bun 1.4.5.
 * @throws Unknown with what it wrote to standard error if it fails
 */
export async function* processStream(
  processor: StreamProcessor,
  mediaType: string,
  pieces: AsyncIterable<Uint8Array>,
  payload: Any | undefined,
): AsyncGenerator<Uint8Array> {
  const program = startProgram(processor, mediaType, payload);
  const feeding = feed(program, pieces);
  const complaining = complaintOf(program.stderr);
  try {
    for await (const chunk of program.stdout) yield chunk as Uint8Array;
    const said = await complaining;
    const sourceFailure = await feeding;
    if (sourceFailure !== undefined) throw sourceFailure;
    const code = await program.exited;
    if (code === 0) return;
    const how = `${processor.path}: ${program.signalCode ?? `exit status ${code}`}`;
    throw new BunkerdError("Unknown", said === "" ? how : said);
  } finally {
    program.kill("SIGKILL");
    await Promise.all([feeding, complaining, program.exited]);
  }
}

function startProgram(
  { path, args, env }: StreamProcessor,
  mediaType: string,
  payload: Any | undefined,
): Program {
  const extra = Object.fromEntries(env.map((entry) => entry.split(/=(.*)/s, 2) as [string, string]));
  const payloadFd = payload === undefined ? undefined : memoryFile("payload", toBinary(AnySchema, payload));
  try {
    return Bun.spawn([path, ...args], {
      env: { ...process.env, ...extra, STREAM_PROCESSOR_MEDIATYPE: mediaType },
      stdio: ["pipe", "pipe", "pipe", ...(payloadFd === undefined ? [] : [payloadFd])],
    }) as Program;
  } catch (cause) {
    throw cannotStart(path, cause as NodeJS.ErrnoException);
  } finally {
    if (payloadFd !== undefined) closeSync(payloadFd);
  }
}

/** Gives it the pieces, no faster than it takes them. Resolves to why these ended early; the program is killed then. */
async function feed(program: Program, pieces: AsyncIterable<Uint8Array>): Promise<unknown> {
  const source = pieces[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { value, done } = await source.next();
      if (done === true) return undefined;
      if (!(await wrote(program, value))) return undefined;
    }
  } catch (error) {
    program.kill("SIGKILL");
    return error;
  } finally {
    await source.return?.();
    await endInput(program);
  }
}

/** False once it has closed its end: it has read enough, how it exits decides. */
async function wrote({ stdin }: Program, bytes: Uint8Array): Promise<boolean> {
  try {
    // Each may be a promise that fails by itself.
    await Promise.all([stdin.write(bytes), stdin.flush()]);
    return true;
  } catch {
    return false;
  }
}

/** Its standard input is closed, whether it still reads or not. */
async function endInput({ stdin }: Program): Promise<void> {
  try {
    await stdin.end();
  } catch {
    // EPIPE: it closed its end first.
  }
}

async function complaintOf(stderr: ReadableStream<Uint8Array>): Promise<string> {
  const complaint: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stderr) {
    if (size < MAX_STDERR_BYTES) complaint.push(chunk);
    size += chunk.length;
  }
  return Buffer.concat(complaint).toString();
}

/** As Go words an exec.Error. */
function cannotStart(path: string, cause: NodeJS.ErrnoException): Error {
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: path.includes("/") ? "no such file or directory" : "executable file not found in $PATH",
    EACCES: "permission denied",
  };
  const reason = reasons[cause.code ?? ""] ?? cause.message;
  return new BunkerdError("Unknown", `exec: ${JSON.stringify(path)}: ${reason}`, { cause });
}
