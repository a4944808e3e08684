/** nghttp2's h2load over a unix socket, for calls that are all alike. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { output } from "../test/support/processes.ts";

export interface Load extends Target {
  readonly message: Uint8Array;
}

/** What is asked, and how often. */
export interface Target {
  readonly socket: string;
  readonly path: string;
  readonly namespace: string;
  /** Requests in all. */
  readonly requests: number;
  readonly connections: number;
  /** Requests under way at once on each connection. */
  readonly streams: number;
}

export interface Rate {
  readonly perSecond: number;
  /** Bytes of one response's body, to see that both daemons answered the same. */
  readonly answerBytes: number;
}

/** @throws if not every request was answered with HTTP status 200 */
export function h2load(folder: string, load: Load): Promise<Rate> {
  return h2loadBody({ ...load, body: writeBody(folder, load.message) });
}

/** The same with a file that holds the request's whole body, messages with their prefixes. */
export function h2loadBody(load: Target & { readonly body: string }): Promise<Rate> {
  return runH2load(load, load.body, []);
}

/**
 * Microseconds of each request where so many are begun a second, whether those before are answered or not.
 * @throws as {@link h2load}
 */
export async function h2loadLatencies(
  folder: string,
  load: Load,
  perSecond: number,
): Promise<readonly number[]> {
  const log = join(folder, "h2load-log");
  // It appends.
  rmSync(log, { force: true });
  const pace = [`--rps=${perSecond / load.connections}`, `--log-file=${log}`];
  await runH2load(load, writeBody(folder, load.message), pace);
  const lines = readFileSync(log, "utf8").trim().split("\n");
  if (lines.length !== load.requests) throw new Error(`h2load logged ${lines.length} of ${load.requests}`);
  return lines.map((line) => Number(line.split("\t")[2]));
}

/** A body of one message. */
function writeBody(folder: string, message: Uint8Array): string {
  const body = join(folder, "h2load-body");
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  writeFileSync(body, Buffer.concat([head, message]));
  return body;
}

async function runH2load(load: Target, body: string, more: readonly string[]): Promise<Rate> {
  const numbers = { "-n": load.requests, "-c": load.connections, "-m": load.streams, "-w": 30, "-W": 30 };
  const headers = [
    "content-type: application/grpc",
    "te: trailers",
    `containerd-namespace: ${load.namespace}`,
  ];
  const printed = await output([
    "h2load",
    ...Object.entries(numbers).flatMap(([flag, value]) => [flag, `${value}`]),
    ...headers.flatMap((header) => ["-H", header]),
    ...["-d", body, ...more, "-B", `unix:${load.socket}`, `http://localhost${load.path}`],
  ]);
  const succeeded = Number(/(\d+) succeeded/.exec(printed)?.[1]);
  const perSecond = Number(/finished in [^,]+, ([\d.]+) req\/s/.exec(printed)?.[1]);
  const dataBytes = Number(/\((\d+)\) data/.exec(printed)?.[1]);
  if (succeeded !== load.requests || !(perSecond > 0)) throw new Error(`h2load ${load.path}: ${printed}`);
  return { perSecond, answerBytes: dataBytes / load.requests };
}
