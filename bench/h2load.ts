/** nghttp2's h2load over a unix socket, for calls that are all alike. */
import { writeFileSync } from "node:fs";
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
  const body = join(folder, "h2load-body");
  const head = Buffer.alloc(5);
  head.writeUInt32BE(load.message.length, 1);
  writeFileSync(body, Buffer.concat([head, load.message]));
  return h2loadBody({ ...load, body });
}

/** The same with a file that holds the request's whole body, messages with their prefixes. */
export async function h2loadBody(load: Target & { readonly body: string }): Promise<Rate> {
  const printed = await output([
    "h2load",
    ...[
      "-n",
      `${load.requests}`,
      "-c",
      `${load.connections}`,
      "-m",
      `${load.streams}`,
      "-w",
      "30",
      "-W",
      "30",
    ],
    ...["-d", load.body, "-H", "content-type: application/grpc", "-H", "te: trailers"],
    ...[
      "-H",
      `containerd-namespace: ${load.namespace}`,
      "-B",
      `unix:${load.socket}`,
      `http://localhost${load.path}`,
    ],
  ]);
  const succeeded = Number(/(\d+) succeeded/.exec(printed)?.[1]);
  const perSecond = Number(/finished in [^,]+, ([\d.]+) req\/s/.exec(printed)?.[1]);
  const dataBytes = Number(/\((\d+)\) data/.exec(printed)?.[1]);
  if (succeeded !== load.requests || !(perSecond > 0)) throw new Error(`h2load ${load.path}: ${printed}`);
  return { perSecond, answerBytes: dataBytes / load.requests };
}
