/** gRPC's client beside servers that do what none should: each frame is the test's. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { ErrorCode } from "../http2/errors.ts";
import {
  Flag,
  FRAME_HEADER_BYTES,
  FrameReader,
  FrameType,
  PREFACE,
  putFrameHeader,
} from "../http2/frames.ts";
import { encodeFields } from "../http2/hpack/encoder.ts";
import { type GrpcTransport, grpcTransport } from "./client.ts";

const OK_HEADERS = encodeFields(
  [
    [":status", "200"],
    ["content-type", "application/grpc"],
  ],
  false,
);
const OK_TRAILERS = encodeFields([["grpc-status", "0"]], false);
/** An empty message. */
const EMPTY = Buffer.alloc(5);
/** The first half of one of 10 bytes. */
const HALF = Buffer.from([0, 0, 0, 0, 10, 1, 2, 3, 4, 5]);
/** VersionResponse of "v1", ReadContentResponse of two bytes. */
const VERSION = Buffer.from([0, 0, 0, 0, 4, 10, 2, 118, 49]);
const READ = Buffer.from([0, 0, 0, 0, 4, 18, 2, 7, 7]);

interface Got {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

/** One connection as the server has it. */
class Peer {
  readonly socket: Socket;
  readonly got: Got[] = [];
  readonly #heard = new Set<() => void>();
  #preface = PREFACE.length;
  ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    let begun = { type: 0, flags: 0, id: 0 };
    const reader = new FrameReader(
      {
        begin: (type, flags, id) => {
          begun = { type, flags, id };
        },
        frame: (type, flags, id, payload) => this.#hear({ type, flags, id, payload: Buffer.from(payload) }),
        data: () => undefined,
        dataEnd: () => this.#hear({ ...begun, payload: Buffer.alloc(0) }),
      },
      1 << 24,
    );
    socket.on("data", (chunk: Buffer) => {
      const skipped = Math.min(this.#preface, chunk.length);
      this.#preface -= skipped;
      reader.push(chunk.subarray(skipped));
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.ended = true;
      for (const heard of this.#heard) heard();
    });
    this.frame(FrameType.settings, 0, 0, []);
  }

  frame(type: number, flags: number, id: number, payload: Uint8Array | readonly number[]): void {
    const frame = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
    putFrameHeader(frame, 0, payload.length, type, flags, id);
    frame.set(payload, FRAME_HEADER_BYTES);
    this.socket.write(frame);
  }

  headers(id: number, block: Uint8Array, endStream = false): void {
    this.frame(FrameType.headers, Flag.endHeaders | (endStream ? Flag.endStream : 0), id, block);
  }

  /** The whole answer of a Version call. */
  answer(id: number): void {
    this.headers(id, OK_HEADERS);
    this.frame(FrameType.data, 0, id, VERSION);
    this.headers(id, OK_TRAILERS, true);
  }

  async until(wanted: (got: Got) => boolean): Promise<Got> {
    for (;;) {
      const found = this.got.find(wanted);
      if (found !== undefined) return found;
      if (this.ended) throw new Error("the client has left");
      await this.#next();
    }
  }

  async left(): Promise<void> {
    while (!this.ended) await this.#next();
  }

  /** The request of stream `id` has begun. */
  request(id: number): Promise<Got> {
    return this.until((got) => got.type === FrameType.headers && got.id === id);
  }

  /** The code of the RST_STREAM of stream `id`. */
  async reset(id: number): Promise<number> {
    return (
      await this.until((got) => got.type === FrameType.rstStream && got.id === id)
    ).payload.readUInt32BE();
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      const heard = (): void => {
        this.#heard.delete(heard);
        resolve();
      };
      this.#heard.add(heard);
    });
  }

  #hear(got: Got): void {
    this.got.push(got);
    for (const heard of this.#heard) heard();
  }
}

let folder: string;
let server: Server;
let transport: GrpcTransport;
let peers: Peer[];
let accepted: (peer: Peer) => void;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-grpc-peers-"));
  const path = join(folder, "s.sock");
  peers = [];
  accepted = () => undefined;
  server = createServer((socket) => {
    const peer = new Peer(socket);
    peers.push(peer);
    accepted(peer);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  transport = grpcTransport({ connect: path, maxMessageBytes: 1 << 20 });
});
afterEach(async () => {
  transport.close();
  for (const { socket } of peers) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

/** The next connection. */
function peer(): Promise<Peer> {
  return new Promise((resolve) => {
    accepted = resolve;
  });
}

const version = (signal?: AbortSignal) => createClient(Version, transport).version({}, signal && { signal });
const read = (signal?: AbortSignal) =>
  createClient(Content, transport)
    .read({}, signal && { signal })
    [Symbol.asyncIterator]();

async function failure(call: Promise<unknown>): Promise<[string, string]> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return [Code[error.code], error.rawMessage];
    throw error;
  }
  throw new Error("the call did not fail");
}

const uint32 = (...values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value, 4 * at);
  return bytes;
};

describe("an answer that is none costs its call, not the connection", () => {
  const fields = (...more: [string, string][]) => encodeFields(more, false);
  const status = [":status", "200"] as [string, string];
  const cases: Record<string, [(peer: Peer) => void, string]> = {
    "data before headers": [(to) => to.frame(FrameType.data, 0, 1, EMPTY), "data before headers"],
    "headers without a status": [
      (to) => to.headers(1, fields(["content-type", "application/grpc"])),
      "answer without a status",
    ],
    "an interim answer that is all": [
      (to) => to.headers(1, fields([":status", "103"]), true),
      "interim answer that ends its stream",
    ],
    "trailers that do not end the stream": [
      (to) => {
        to.headers(1, OK_HEADERS);
        to.headers(1, OK_TRAILERS);
      },
      "trailers that do not end their stream",
    ],
    "a status in the trailers": [
      (to) => {
        to.headers(1, OK_HEADERS);
        to.headers(1, fields(["grpc-status", "0"], status), true);
      },
      "pseudo-header :status in trailers",
    ],
    "two statuses": [
      (to) => to.headers(1, fields(status, status)),
      "pseudo-header :status in the wrong place",
    ],
    "a name that is none, in the last thing that comes": [
      (to) => {
        to.headers(1, OK_HEADERS);
        to.headers(1, fields(["grpc-status", "5"], ["no name", "x"]), true);
      },
      "field name is no token in lower case",
    ],
    "a value with a line break": [
      (to) => to.headers(1, fields(status, ["x", "a\nb"]), true),
      "value of field x has forbidden characters",
    ],
    "a field of the connection": [
      (to) => to.headers(1, fields(status, ["connection", "close"])),
      "connection-specific field connection",
    ],
  };
  for (const [name, [send, problem]] of Object.entries(cases)) {
    test(name, async () => {
      const connected = peer();
      const call = failure(version());
      const to = await connected;
      await to.request(1);
      send(to);
      expect(await call).toEqual(["Internal", `protocol error: ${problem}`]);
      expect(await to.reset(1)).toBe(ErrorCode.protocolError);
      const next = version();
      await to.request(3);
      to.answer(3);
      expect((await next).version).toBe("v1");
      expect(peers.length).toBe(1);
    });
  }

  test("interim answers are passed over, and an answer may end within no message", async () => {
    const connected = peer();
    const call = version();
    const to = await connected;
    await to.request(1);
    to.headers(1, fields([":status", "103"], ["link", "x"]));
    to.headers(1, fields([":status", "100"]));
    to.answer(1);
    expect((await call).version).toBe("v1");
    const cut = failure(version());
    await to.request(3);
    to.headers(3, OK_HEADERS);
    to.frame(FrameType.data, 0, 3, HALF);
    to.headers(3, OK_TRAILERS, true);
    expect(await cut).toEqual(["Internal", "protocol error: the answer ends within a message"]);
  });
});

describe("a server that goes", () => {
  test("in the midst of a message: what came whole is read, then the call is Unavailable", async () => {
    const connected = peer();
    const answers = read();
    const first = answers.next();
    const to = await connected;
    await to.request(1);
    const unary = failure(version());
    await to.request(3);
    for (const id of [1, 3]) to.headers(id, OK_HEADERS);
    to.frame(FrameType.data, 0, 1, READ);
    to.frame(FrameType.data, 0, 1, READ);
    for (const id of [1, 3]) to.frame(FrameType.data, 0, id, HALF);
    to.socket.end();
    expect((await first).value?.data).toEqual(new Uint8Array([7, 7]));
    expect((await answers.next()).value?.data).toEqual(new Uint8Array([7, 7]));
    expect(await failure(answers.next())).toEqual(["Unavailable", "closed by the server"]);
    expect(await unary).toEqual(["Unavailable", "closed by the server"]);
  });

  test("GOAWAY: the calls up to its last go on, later ones fail, new ones have a new connection", async () => {
    const connected = peer();
    const first = version();
    const to = await connected;
    await to.request(1);
    const second = failure(version());
    await to.request(3);
    to.frame(FrameType.goaway, 0, 0, uint32(1, ErrorCode.noError));
    expect((await second)[0]).toBe("Unavailable");
    const successor = peer();
    const third = version();
    const next = await successor;
    await next.request(1);
    next.answer(1);
    expect((await third).version).toBe("v1");
    to.answer(1);
    expect((await first).version).toBe("v1");
    await to.left();
  });

  test("every call hears of it, though one caller's own messages throw when they are let go", async () => {
    const connected = peer();
    const inputs = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => undefined),
        return: () => {
          throw new Error("the caller's own");
        },
      }),
    };
    const writing = failure(createClient(Content, transport).write(inputs)[Symbol.asyncIterator]().next());
    const to = await connected;
    await to.request(1);
    const others = [failure(version()), failure(version())];
    await to.request(5);
    to.socket.destroy();
    for (const call of [writing, ...others]) expect((await call)[0]).toBe("Unavailable");
  });
});

describe("the caller's end", () => {
  /** A signal that counts who listens. */
  function counted(): { controller: AbortController; listeners: () => number } {
    const controller = new AbortController();
    const { signal } = controller;
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners += 1;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners -= 1;
      removeEventListener.apply(signal, args);
    };
    return { controller, listeners: () => listeners };
  }

  test("while it connects, while it waits for room, while it is under way: CANCEL where the server knows of it", async () => {
    const connected = peer();
    const early = counted();
    const never = failure(version(early.controller.signal));
    early.controller.abort();
    expect(await never).toEqual(["Canceled", "This operation was aborted"]);
    const to = await connected;
    to.frame(FrameType.settings, 0, 0, [0, 3, 0, 0, 0, 1]);
    await to.until(({ type, flags }) => type === FrameType.settings && flags === Flag.ack);
    const [under, waiting, after] = [counted(), counted(), counted()];
    const calls = [under, waiting].map(({ controller }) => failure(version(controller.signal)));
    const last = version(after.controller.signal);
    await to.request(3);
    waiting.controller.abort();
    under.controller.abort();
    for (const id of [1, 3]) expect(await to.reset(id)).toBe(ErrorCode.cancel);
    for (const call of calls) expect((await call)[0]).toBe("Canceled");
    // What was on its way means nothing; the one that still waits is next.
    to.answer(3);
    to.frame(FrameType.rstStream, 0, 3, uint32(ErrorCode.noError));
    await to.request(5);
    to.answer(5);
    expect((await last).version).toBe("v1");
    expect(to.got.filter(({ type }) => type === FrameType.headers).length).toBe(3);
    expect([early, under, waiting, after].map(({ listeners }) => listeners())).toEqual([0, 0, 0, 0]);
  });

  test("within an answer: what still comes is let pass and its window given back", async () => {
    const connected = peer();
    const { controller, listeners } = counted();
    const answers = read(controller.signal);
    const first = answers.next();
    const to = await connected;
    await to.request(1);
    to.headers(1, OK_HEADERS);
    to.frame(FrameType.data, 0, 1, READ);
    await first;
    controller.abort();
    expect((await failure(answers.next()))[0]).toBe("Canceled");
    expect(listeners()).toBe(0);
    expect(await to.reset(1)).toBe(ErrorCode.cancel);
    // More than the connection's window at first.
    for (let sent = 0; sent < 300; sent++) to.frame(FrameType.data, 0, 1, Buffer.alloc(16_384));
    const next = version();
    await to.request(3);
    to.answer(3);
    expect((await next).version).toBe("v1");
  });
});

test("a server that makes us answer and does not read is not read either", async () => {
  const connected = peer();
  const call = version();
  const to = await connected;
  await to.request(1);
  to.socket.pause();
  const pings = Buffer.alloc((17 << 20) / 17);
  for (let at = 0; at + 17 <= pings.length; at += 17) putFrameHeader(pings, at, 8, FrameType.ping, 0, 0);
  let sentBytes = 0;
  for (let before = -1; sentBytes > before && sentBytes < 64 << 20; ) {
    before = sentBytes;
    const drained = Promise.withResolvers<void>();
    to.socket.write(pings.subarray(0, pings.length - (pings.length % 17)), () => {
      sentBytes += pings.length;
      drained.resolve();
    });
    await Promise.race([drained.promise, Bun.sleep(1000)]);
  }
  expect(sentBytes).toBeLessThan(16 << 20);
  to.socket.resume();
  to.answer(1);
  expect((await call).version).toBe("v1");
});
