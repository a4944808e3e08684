import { spawn } from "node:child_process";
import { Readable, type Writable } from "node:stream";
import { toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { BunkerdError } from "../model/errors.ts";
import type { StreamProcessor } from "./processing.ts";

/** What of a program's complaint is repeated. */
const MAX_STDERR_BYTES = 16 << 10;
/** Where the payload is read: the first descriptor behind the standard ones. */
const PAYLOAD_FD = 3;

/**
 * The bytes that a program makes of `pieces`: these are its standard input, its output is the result, the payload comes by
 * descriptor 3, and `STREAM_PROCESSOR_MEDIATYPE` says what it is given (containerd `core/diff/stream_unix.go`).
 * @throws Unknown with what it wrote to standard error if it fails
 */
export async function* processStream(
  { path, args, env }: StreamProcessor,
  mediaType: string,
  pieces: AsyncIterable<Uint8Array>,
  payload: Any | undefined,
): AsyncGenerator<Uint8Array> {
  const extra = Object.fromEntries(env.map((entry) => entry.split(/=(.*)/s, 2) as [string, string]));
  const child = spawn(path, [...args], {
    env: { ...process.env, ...extra, STREAM_PROCESSOR_MEDIATYPE: mediaType },
    stdio: ["pipe", "pipe", "pipe", ...(payload === undefined ? [] : ["pipe" as const])],
  });
  let notStarted: Error | undefined;
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", (cause) => {
      notStarted = cannotStart(path, cause);
      reject(notStarted);
    });
    child.once("close", (code, signal) => {
      const said = Buffer.concat(complaint).toString();
      if (code === 0) resolve();
      else
        reject(
          new BunkerdError("Unknown", said === "" ? `${path}: ${signal ?? `exit status ${code}`}` : said),
        );
    });
  });
  // Awaited once the output has ended.
  ended.catch(() => undefined);
  const complaint: Buffer[] = [];
  let size = 0;
  child.stderr?.on("data", (chunk: Buffer) => {
    if (size < MAX_STDERR_BYTES) complaint.push(chunk);
    size += chunk.length;
  });
  let sourceFailure: unknown;
  const source = Readable.from(pieces);
  source.once("error", (error) => {
    sourceFailure = error;
    child.kill("SIGKILL");
  });
  // A program that has read enough closes its end; how it exits decides.
  child.stdin?.once("error", () => source.destroy());
  if (child.stdin !== null) source.pipe(child.stdin);
  if (payload !== undefined) {
    const descriptor = child.stdio[PAYLOAD_FD] as Writable | null | undefined;
    descriptor?.once("error", () => undefined);
    descriptor?.end(toBinary(AnySchema, payload));
  }
  try {
    for await (const chunk of child.stdout ?? []) yield chunk as Buffer;
    await ended;
  } catch (error) {
    // The output of what never ran may end before it is told why.
    child.kill("SIGKILL");
    await ended.catch(() => undefined);
    throw sourceFailure ?? notStarted ?? error;
  } finally {
    source.destroy();
    child.kill("SIGKILL");
    await ended.catch(() => undefined);
  }
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
