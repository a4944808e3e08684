/** The engine behind a bare socket, with handlers that do what a request's path says; fails its test if anything is left. */
import { expect } from "bun:test";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../../../src/transport/grpc/answers.ts";
import { FramedMessage } from "../../../src/transport/grpc/framed-message.ts";
import { PartedMessage } from "../../../src/transport/grpc/parted-message.ts";
import type { GrpcStream } from "../../../src/transport/grpc/stream.ts";
import { Http2Server } from "../../../src/transport/http2/engine.ts";
import type { Http2Limits } from "../../../src/transport/http2/limits.ts";
import { DEFAULT_LIMITS } from "../../../src/transport/limits.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

export interface EngineServer extends AsyncDisposable {
  readonly path: string;
  readonly engine: Http2Server;
  /** Streams that a handler got, by path; `/hold` ones are answered by the test. */
  readonly streams: GrpcStream[];
  /** Reasons of cancellations, in order. */
  readonly cancelled: string[];
  /** Bytes that `/paused` and `/hold` streams have received. */
  receivedBytes: number;
  /** Messages that `/spread` has written. */
  written: number;
  readonly errors: string[];
}

/**
 * gRPC paths: `/echo` answers the request's first message; `/hold` reads and never answers; `/paused` pauses at once; `/spread/N/SIZE`
 * writes N messages of SIZE bytes as fast as it may, `/framed/N/SIZE` those of {@link patternOf} where they lie; `/throw` is a broken handler. Others: the body, or as many bytes as the last `x-size` says, or with
 * `x-early` 413 at once.
 */
export async function startEngine(changed: Partial<Http2Limits> = {}): Promise<EngineServer> {
  const limits = { minPingIntervalMs: 0, minIdlePingIntervalMs: 0, ...changed };
  const folder = temporaryFolder();
  const path = join(folder, "s.sock");
  const errors: string[] = [];
  const logger: Logger = { ...silentLogger, error: (message) => errors.push(message) };
  const server: Omit<EngineServer, "engine" | "path" | typeof Symbol.asyncDispose> = {
    streams: [],
    cancelled: [],
    receivedBytes: 0,
    written: 0,
    errors,
  };
  const engine = new Http2Server(
    {
      grpc: (stream) => handle(stream, server),
      universal: async ({ body, header, signal }) => {
        if (header.has("x-early")) return { status: 413, body: once(Buffer.from("too large")) };
        signal.addEventListener("abort", () => server.cancelled.push(String(signal.reason)));
        const chunks: Uint8Array[] = [];
        for await (const chunk of body as AsyncIterable<Uint8Array>) chunks.push(chunk);
        const size = header.get("x-size");
        const answer =
          size === null ? Buffer.concat(chunks) : Buffer.alloc(Number(size.split(", ").at(-1)), 120);
        return { status: 200, header: new Headers({ "x-answer": "yes" }), body: once(answer) };
      },
      logger,
      limits: DEFAULT_LIMITS,
    },
    limits,
  );
  const listener = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.pause();
    engine.accept(socket, Buffer.alloc(0));
  });
  await new Promise<void>((resolve) => listener.listen({ path }, resolve));
  return Object.assign(server, {
    path,
    engine,
    [Symbol.asyncDispose]: () => stop(engine, listener, folder, errors),
  });
}

async function stop(engine: Http2Server, listener: Server, folder: string, errors: string[]): Promise<void> {
  engine.destroy();
  await new Promise<void>((resolve) => listener.close(() => resolve()));
  removeFolder(folder);
  expect({ connections: engine.connections, streams: engine.openStreams, errors }).toEqual({
    connections: 0,
    streams: 0,
    errors: [],
  });
}

async function* once(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

function handle(
  stream: GrpcStream,
  server: { streams: GrpcStream[]; cancelled: string[]; receivedBytes: number; written: number },
): void {
  server.streams.push(stream);
  const cancelled = (reason: string): void => void server.cancelled.push(reason);
  const [, what, count = "0", size = "0"] = stream.path.split("/");
  if (what === "throw") throw new Error("broken handler");
  if (what === "paused") stream.pause();
  if (what === "spread") void spread(stream, Number(count), Number(size), server);
  if (what === "parted") parted(stream, Number(count), Number(size));
  if (what === "framed") void framed(stream, Number(count), Number(size), server);
  const chunks: Uint8Array[] = [];
  let heldBytes = 0;
  stream.receive({
    get heldBytes() {
      return heldBytes;
    },
    data(chunk) {
      // As if all of a request were one message that never ends.
      if (what === "hold") heldBytes += chunk.length;
      server.receivedBytes += chunk.length;
      if (what === "echo") chunks.push(chunk);
      if (what === "throw-data") throw new Error("broken receiver");
    },
    end() {
      if (what === "echo") stream.respond(RESPONSE_HEADERS, Buffer.concat(chunks).subarray(5), OK_TRAILERS);
    },
    cancelled,
  });
}

async function spread(
  stream: GrpcStream,
  count: number,
  size: number,
  server: { written: number },
): Promise<void> {
  const message = Buffer.alloc(size, 97);
  stream.sendHeaders(RESPONSE_HEADERS);
  for (let sent = 0; sent < count; sent++) {
    server.written += 1;
    if (!stream.writeMessage(message, false)) await stream.drained();
  }
  stream.end(OK_TRAILERS);
}

/** One message of `count` parts. */
function parted(stream: GrpcStream, count: number, size: number): void {
  const parts = Array.from({ length: count }, (_, index) => patternOf(index, size));
  stream.respond(RESPONSE_HEADERS, new PartedMessage(parts), OK_TRAILERS);
}

async function framed(
  stream: GrpcStream,
  count: number,
  size: number,
  server: { written: number },
): Promise<void> {
  stream.sendHeaders(RESPONSE_HEADERS);
  for (let index = 0; index < count; index++) {
    const message = new FramedMessage(size);
    const pattern = patternOf(index, size);
    let at = 0;
    for (const part of message.from(0)) {
      part.set(pattern.subarray(at, at + part.length));
      at += part.length;
    }
    server.written += 1;
    if (!stream.writeFramed(message)) await stream.drained();
  }
  stream.end(OK_TRAILERS);
}

/** Bytes of which no stretch is like its neighbour, nor like that of another message. */
export function patternOf(index: number, size: number): Buffer {
  const pattern = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) pattern.writeUInt32BE(((index & 0x7f) << 24) + at, at);
  return pattern;
}
