/** The HTTP/2 engine without a socket: bytes in, frames out, in one turn, as often as a fuzzer likes. */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { type Logger, silentLogger } from "../../src/lib/log.ts";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../../src/transport/grpc/answers.ts";
import type { GrpcStream } from "../../src/transport/grpc/stream.ts";
import { Connection } from "../../src/transport/http2/connection.ts";
import { DEFAULT_HTTP2_LIMITS, type Http2Limits } from "../../src/transport/http2/limits.ts";
import { DEFAULT_LIMITS } from "../../src/transport/limits.ts";

export interface SentFrame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly length: number;
  /** The first bytes of the payload, for what is told apart by them. */
  readonly head: string;
}

/** What a socket does as far as the engine uses it. */
export class Wire extends EventEmitter {
  readonly chunks: Buffer[] = [];
  readonly writableLength: number = 0;
  destroyed = false;
  ended = false;

  write(bytes: Uint8Array): boolean {
    if (this.ended) throw new Error("written behind the end");
    // The engine takes its buffer back when the write was whole.
    this.chunks.push(Buffer.from(bytes));
    return true;
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {
    this.destroyed = true;
  }

  pause(): void {}

  resume(): void {}
}

export interface Exchange {
  readonly frames: readonly SentFrame[];
  /** We have closed the connection. */
  readonly closed: boolean;
  /** Calls that began, and that were answered, cancelled or are still open at the end. */
  readonly begun: number;
  readonly open: number;
  readonly cancelled: readonly string[];
  readonly errors: readonly string[];
  /** All that was sent. */
  readonly bytes: Buffer;
}

export interface ExchangeOptions {
  readonly limits?: Partial<Http2Limits>;
  /** Answer every request but `/hold` with "hi" when all bytes have come, instead of what the path says. */
  readonly late?: boolean;
}

/**
 * Gives `chunks` to a new connection and tells what it did. `/echo` answers its first bytes, `/spread` three messages at once, `/early`
 * when it has begun, `/hold` never, `/pause` pauses and resumes.
 */
export async function exchange(
  chunks: Iterable<Buffer>,
  { limits, late }: ExchangeOptions = {},
): Promise<Exchange> {
  const answers: (() => void)[] = [];
  const wire = new Wire();
  const errors: string[] = [];
  const cancelled: string[] = [];
  let begun = 0;
  let universal = 0;
  const logger: Logger = {
    ...silentLogger,
    error: (message, fields) => errors.push(`${message} ${fields?.["error"]}`),
  };
  const connection = new Connection(wire as unknown as Socket, {
    limits: { ...DEFAULT_HTTP2_LIMITS, lingerMs: 1_000_000, ...limits },
    handlers: {
      grpc: (stream) => {
        begun += 1;
        if (late === true) serveLate(stream, answers, cancelled);
        else serve(stream, cancelled);
      },
      universal: async ({ body, url }): Promise<UniversalServerResponse> => {
        universal += 1;
        if (late === true) for await (const _ of body as AsyncIterable<Uint8Array>);
        if (late === true && url.endsWith("/hold")) await new Promise(() => undefined);
        return { status: 404, header: new Headers({ "x-none": "such" }), body: hi() };
      },
      logger,
      limits: DEFAULT_LIMITS,
    },
    now: () => 0,
    closed: () => undefined,
  });
  connection.start(Buffer.alloc(0));
  for (const chunk of chunks) wire.emit("data", chunk);
  // What answers by promises gets its turns.
  for (let turn = 0; turn < 30; turn++) await undefined;
  if (universal > 0) await new Promise(setImmediate);
  for (const answer of answers) answer();
  for (let turn = 0; turn < 30; turn++) await undefined;
  const closed = wire.ended;
  const bytes = Buffer.concat(wire.chunks);
  const frames = framesOf(bytes);
  connection.destroy();
  return { frames, closed, begun, open: connection.openStreams, cancelled, errors, bytes };
}

async function* hi(): AsyncIterable<Uint8Array> {
  yield Buffer.from("\0\0\0\0\x02hi");
}

function serve(stream: GrpcStream, cancelled: string[]): void {
  const chunks: Uint8Array[] = [];
  const kind = stream.path.slice(0, 4);
  const answer = (): void =>
    stream.respond(RESPONSE_HEADERS, Buffer.concat(chunks).subarray(0, 100), OK_TRAILERS);
  stream.receive({
    data(chunk) {
      if (kind === "/ech") chunks.push(chunk);
      if (kind === "/pau") stream.pause();
    },
    end() {
      if (kind === "/pau") stream.resume();
      if (kind === "/spr") spread(stream);
      else if (kind !== "/hol") answer();
    },
    cancelled: (reason) => void cancelled.push(reason),
  });
  if (kind === "/ear") answer();
}

function serveLate(stream: GrpcStream, answers: (() => void)[], cancelled: string[]): void {
  stream.receive({
    data: () => undefined,
    end: () => {
      if (stream.path !== "/hold") answers.push(() => stream.respond([], Buffer.from("hi"), OK_TRAILERS));
    },
    cancelled: (reason) => void cancelled.push(reason),
  });
}

function spread(stream: GrpcStream): void {
  stream.sendHeaders(RESPONSE_HEADERS);
  for (const length of [0, 20_000, 7]) stream.writeMessage(new Uint8Array(length), false);
  stream.end(OK_TRAILERS);
}

/** @throws if the bytes do not end with a frame, unless they may be `cut` */
export function framesOf(bytes: Buffer, cut = false): SentFrame[] {
  const frames: SentFrame[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (cut && (bytes.length - at < 9 || at + 9 + bytes.readUIntBE(at, 3) > bytes.length)) break;
    if (bytes.length - at < 9) throw new Error("part of a frame was sent");
    const length = bytes.readUIntBE(at, 3);
    const end = at + 9 + length;
    if (end > bytes.length) throw new Error("part of a frame was sent");
    frames.push({
      type: bytes.readUInt8(at + 3),
      flags: bytes.readUInt8(at + 4),
      id: bytes.readUInt32BE(at + 5),
      length,
      head: bytes.toString("hex", at + 9, Math.min(end, at + 17)),
    });
    at = end;
  }
  return frames;
}
