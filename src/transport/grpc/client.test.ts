/** gRPC's client beside our own server, and beside `node:http2` for answers that no gRPC server gives. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Http2Server, type ServerHttp2Stream, type Settings } from "node:http2";
import { createServer as createPlainServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type HandlerContext } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content, type WriteContentRequest } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Version, VersionResponseSchema } from "#gen/containerd/services/version/v1/version_pb.ts";
import { silentLogger } from "../../lib/log.ts";
import { FRAME_HEADER_BYTES, FrameType, putFrameHeader } from "../http2/frames.ts";
import { Listener } from "../listener.ts";
import { bind, type ServiceBinding } from "../registry.ts";
import { type GrpcTransport, grpcTransport } from "./client.ts";

const MAX_MESSAGE_BYTES = 4 << 20;

let folder: string;
let path: string;
let transport: GrpcTransport;
const closing: (() => unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-grpc-client-"));
  path = join(folder, "s.sock");
  transport = grpcTransport({ connect: path, maxMessageBytes: MAX_MESSAGE_BYTES });
});
afterEach(async () => {
  transport.close();
  for (const close of closing.splice(0)) await close();
  rmSync(folder, { recursive: true });
});

async function serve(...bindings: unknown[]): Promise<Listener> {
  const listener = new Listener({ path }, { bindings: bindings as ServiceBinding[], logger: silentLogger });
  await listener.start();
  closing.push(() => listener.close(0));
  return listener;
}

/** A server whose answers are the test's. */
async function serveRaw(answer: (stream: ServerHttp2Stream) => void, settings: Settings = {}): Promise<void> {
  const server: Http2Server = createServer({ settings });
  server.on("stream", answer);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  closing.push(() => server.close());
}

/** A server that answers the first request of a connection with these frames behind its SETTINGS; an empty one cuts the connection. */
async function serveFrames(
  ...frames: (readonly [type: number, payload: readonly number[]])[]
): Promise<void> {
  const server = createPlainServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write(frameOf(FrameType.settings, 0, []));
      for (const [type, payload] of frames) socket.write(frameOf(type, 1, payload));
      if (frames.length === 0) socket.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  closing.push(() => server.close());
}

function frameOf(type: number, streamId: number, payload: readonly number[]): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  putFrameHeader(frame, 0, payload.length, type, 0, streamId);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return error;
    throw error;
  }
  throw new Error("the call did not fail");
}

const version = () => createClient(Version, transport).version({});
const content = () => createClient(Content, transport);
const bytes = (length: number): Uint8Array => new Uint8Array(length).fill(7);
const GRPC = { ":status": 200, "content-type": "application/grpc" } as const;

describe("unary calls", () => {
  test("headers go out, headers and trailers come back", async () => {
    let sent: string | null = null;
    const answer = (_: unknown, { requestHeader, responseHeader, responseTrailer }: HandlerContext) => {
      sent = requestHeader.get("containerd-namespace");
      responseHeader.set("a-header", "1");
      responseTrailer.set("a-trailer", "2");
      return { version: "v1" };
    };
    await serve(bind(Version, { version: answer }));
    const seen: (string | null)[] = [];
    const options = {
      headers: { "Containerd-Namespace": "prod" },
      onHeader: (headers: Headers) => void seen.push(headers.get("a-header")),
      onTrailer: (headers: Headers) => void seen.push(headers.get("a-trailer")),
    };
    expect((await createClient(Version, transport).version({}, options)).version).toBe("v1");
    expect([sent, ...seen] as unknown[]).toEqual(["prod", "1", "2"]);
  });

  test("messages larger than every window pass, too large ones are refused by whoever has them", async () => {
    const list = ({ filters }: { filters: string[] }) => ({ containers: [{ id: filters[0] ?? "" }] });
    await serve(bind(Containers, { list }));
    const containers = createClient(Containers, transport);
    const long = "x".repeat(MAX_MESSAGE_BYTES - 100);
    expect((await containers.list({ filters: [long] })).containers[0]?.id).toBe(long);
    const error = await failure(containers.list({ filters: [`${long}${"x".repeat(200)}`] }));
    expect(error.code).toBe(Code.ResourceExhausted);
    transport.close();
    transport = grpcTransport({ connect: path, maxMessageBytes: 1000 });
    const answered = await failure(createClient(Containers, transport).list({ filters: ["x".repeat(996)] }));
    expect([answered.code, answered.rawMessage] as unknown[]).toEqual([
      Code.ResourceExhausted,
      expect.stringMatching(/^grpc: received message larger than max \(\d+ vs\. 1000\)$/) as string,
    ]);
  });

  test("200 at once are answered, each with its own", async () => {
    const list = ({ filters }: { filters: string[] }) => ({ containers: [{ id: filters[0] ?? "" }] });
    await serve(bind(Containers, { list }));
    const containers = createClient(Containers, transport);
    const calls = Array.from({ length: 200 }, (_, n) => containers.list({ filters: [`${n}`] }));
    const ids = (await Promise.all(calls)).map((answer) => answer.containers[0]?.id);
    expect(ids).toEqual(Array.from({ length: 200 }, (_, n) => `${n}`));
  });

  test("a deadline is told to the server and kept without it; the server hears that the caller is gone", async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    let leftMs: number | undefined;
    const hangs = (_: unknown, context: HandlerContext) => {
      leftMs = context.timeoutMs();
      context.signal.addEventListener("abort", () => resolve());
      return new Promise<never>(() => undefined);
    };
    await serve(bind(Version, { version: hangs }));
    const error = await failure(createClient(Version, transport).version({}, { timeoutMs: 150 }));
    expect(error.code).toBe(Code.DeadlineExceeded);
    expect(leftMs).toBeGreaterThan(100);
    expect(leftMs).toBeLessThanOrEqual(150);
    await aborted;
  });

  test("a status comes with its words and details", async () => {
    const message = 'container "wéb\n%41": not found';
    const detail = { desc: VersionResponseSchema, value: create(VersionResponseSchema, { version: "v9" }) };
    const answer = () => {
      throw new ConnectError(message, Code.NotFound, undefined, [detail]);
    };
    await serve(bind(Version, { version: answer }));
    const error = await failure(version());
    expect([error.code, error.rawMessage, error.isWireError] as unknown[]).toEqual([
      Code.NotFound,
      message,
      true,
    ]);
    expect(error.findDetails(VersionResponseSchema)[0]?.version).toBe("v9");
  });
});

describe("streams", () => {
  test("requests and answers pass each other; the end of either is heard", async () => {
    async function* write(requests: AsyncIterable<WriteContentRequest>) {
      let total = 0n;
      for await (const { data } of requests) {
        total += BigInt(data.length);
        yield { total };
      }
    }
    await serve(bind(Content, { write }));
    async function* sent() {
      for (let n = 0; n < 50; n++) yield { data: bytes(100_000) };
    }
    let last = 0n;
    for await (const { total } of content().write(sent())) last = total;
    expect(last).toBe(5_000_000n);
  });

  test("a server that does not read holds the writer back, and its failure ends it", async () => {
    const { promise: enough, resolve } = Promise.withResolvers<void>();
    // biome-ignore lint/correctness/useYield: it answers nothing
    async function* write(requests: AsyncIterable<WriteContentRequest>) {
      await requests[Symbol.asyncIterator]().next();
      await enough;
      throw new ConnectError("full", Code.ResourceExhausted);
    }
    await serve(bind(Content, { write }));
    let made = 0;
    let ended = false;
    async function* sent() {
      try {
        for (;;) {
          made += 1;
          yield { data: bytes(1 << 20) };
        }
      } finally {
        ended = true;
      }
    }
    const answers = content().write(sent())[Symbol.asyncIterator]().next();
    let before = -1;
    while (made !== before) {
      before = made;
      await Bun.sleep(50);
    }
    expect(made).toBeLessThan(60);
    resolve();
    expect((await failure(answers)).rawMessage).toBe("full");
    while (!ended) await Bun.sleep(1);
  });

  test("a reader that does not read holds the server back; what it leaves is cancelled there", async () => {
    let made = 0;
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    async function* read(_: unknown, { signal }: HandlerContext) {
      signal.addEventListener("abort", () => resolve());
      for (;;) {
        made += 1;
        yield { data: bytes(64 << 10) };
      }
    }
    await serve(bind(Content, { read }));
    const left = new AbortController();
    const answers = content().read({}, { signal: left.signal })[Symbol.asyncIterator]();
    await answers.next();
    let before = -1;
    while (made !== before) {
      before = made;
      await Bun.sleep(50);
    }
    expect(made).toBeLessThan(200);
    left.abort();
    await aborted;
    expect((await failure(answers.next())).code).toBe(Code.Canceled);
  });
});

describe("connections", () => {
  test("a server that drains ends what is open and takes nothing new; the next call goes to its successor", async () => {
    const { promise: called, resolve: wasCalled } = Promise.withResolvers<void>();
    const { promise: go, resolve } = Promise.withResolvers<void>();
    let calls = 0;
    const slow = async () => {
      calls += 1;
      wasCalled();
      if (calls === 1) await go;
      return { version: "first" };
    };
    const first = await serve(bind(Version, { version: slow }));
    const open = version();
    await called;
    const closed = first.close(5000);
    await serve(bind(Version, { version: () => ({ version: "second" }) }));
    while ((await version()).version !== "second");
    resolve();
    expect((await open).version).toBe("first");
    await closed;
  });

  test("no more streams are open than the server allows", async () => {
    let open = 0;
    let most = 0;
    const answer = (stream: ServerHttp2Stream): void => {
      open += 1;
      most = Math.max(most, open);
      setTimeout(() => {
        open -= 1;
        stream.respond({ ...GRPC, "grpc-status": "5", "grpc-message": "no" }, { endStream: true });
      }, 5);
    };
    await serveRaw(answer, { maxConcurrentStreams: 3 });
    const calls = await Promise.all(Array.from({ length: 12 }, () => failure(version())));
    expect(calls.map(({ code }) => code)).toEqual(Array.from({ length: 12 }, () => Code.NotFound));
    expect(most).toBeLessThanOrEqual(3);
  });

  test("answers that wait for their reader do not keep others from theirs", async () => {
    async function* sent() {
      for (let n = 0; n < 80; n++) yield { data: bytes(64 << 10) };
    }
    await serve(bind(Content, { read: sent }));
    const answers = Array.from({ length: 20 }, () => content().read({})[Symbol.asyncIterator]());
    for (const one of answers) await one.next();
    for (const one of answers) {
      let count = 1;
      while ((await one.next()).done !== true) count += 1;
      expect(count).toBe(80);
    }
  });

  test("one that is not used does not keep the process", async () => {
    await serve(bind(Version, { version: () => ({ version: "v1" }) }));
    const program = `
      import { createClient } from "@connectrpc/connect";
      import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
      import { grpcTransport } from ${JSON.stringify(join(import.meta.dir, "client.ts"))};
      const client = createClient(Version, grpcTransport({ connect: ${JSON.stringify(path)}, maxMessageBytes: 1000 }));
      for (let n = 0; n < 3; n++) process.stdout.write((await client.version({})).version);`;
    const child = Bun.spawn([process.execPath, "-e", program], { cwd: join(import.meta.dir, "../../..") });
    expect(await child.stdout.text()).toBe("v1v1v1");
    expect(await child.exited).toBe(0);
  });
});

describe("what is no answer of gRPC", () => {
  const details = Buffer.from("not base64 of a status").toString("base64");
  const cases: Record<string, [(stream: ServerHttp2Stream) => void, Code, string]> = {
    "an error of HTTP": [
      (stream) => stream.respond({ ":status": 404 }, { endStream: true }),
      Code.Unimplemented,
      "HTTP 404",
    ],
    "another content type": [
      (stream) => stream.respond({ ":status": 200, "content-type": "text/plain" }, { endStream: true }),
      Code.Unknown,
      "unsupported content type text/plain",
    ],
    "no status": [
      (stream) => stream.respond(GRPC, { endStream: true }),
      Code.Internal,
      "protocol error: missing status",
    ],
    "a status that is none": [
      (stream) => stream.respond({ ...GRPC, "grpc-status": "77" }, { endStream: true }),
      Code.Internal,
      "invalid grpc-status: 77",
    ],
    "success without a message": [
      (stream) => stream.respond({ ...GRPC, "grpc-status": "0" }, { endStream: true }),
      Code.Unimplemented,
      "protocol error: missing output message for unary method",
    ],
    "words that are no percent-encoding": [
      (stream) =>
        stream.respond({ ...GRPC, "grpc-status": "2", "grpc-message": "100% w%C3%A9b" }, { endStream: true }),
      Code.Unknown,
      "100% wéb",
    ],
    "details that are no status": [
      (stream) =>
        stream.respond(
          { ...GRPC, "grpc-status": "5", "grpc-status-details-bin": details },
          { endStream: true },
        ),
      Code.Internal,
      "grpc-status-details-bin: ",
    ],
    "a compressed message": [
      (stream) => {
        stream.respond(GRPC);
        stream.end(Buffer.from([1, 0, 0, 0, 1, 0]));
      },
      Code.Internal,
      "received a compressed message that was not asked for",
    ],
  };
  for (const [name, [answer, code, message]] of Object.entries(cases)) {
    test(name, async () => {
      await serveRaw(answer);
      const error = await failure(version());
      expect([Code[error.code] as string, error.rawMessage]).toEqual([
        Code[code] as string,
        expect.stringMatching(new RegExp(`^${message.replace(/[()]/g, "\\$&")}`)) as string,
      ]);
    });
  }

  type Frame = readonly [type: number, payload: readonly number[]];
  const frames: Record<string, [Frame[], Code, string]> = {
    "a reset": [
      [[FrameType.rstStream, [0, 0, 0, 8]]],
      Code.Canceled,
      "http/2 stream closed with error code CANCEL (0x8)",
    ],
    "a refused stream": [
      [[FrameType.rstStream, [0, 0, 0, 7]]],
      Code.Unavailable,
      "http/2 stream closed with error code REFUSED_STREAM (0x7)",
    ],
    "a connection that ends": [[], Code.Unavailable, "closed by the server"],
    "a push": [[[FrameType.pushPromise, [0, 0, 0, 2]]], Code.Unavailable, "PUSH_PROMISE was not allowed"],
    "half a header block": [[[FrameType.continuation, []]], Code.Unavailable, "CONTINUATION without HEADERS"],
  };
  for (const [name, [sent, code, message]] of Object.entries(frames)) {
    test(name, async () => {
      await serveFrames(...sent);
      const error = await failure(version());
      expect([Code[error.code] as string, error.rawMessage]).toEqual([Code[code] as string, message]);
    });
  }

  test("a status in headers that are all there is", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    await serveRaw((stream) => {
      stream.respond({ ...GRPC, "grpc-status": "12", "grpc-message": "none" }, { endStream: true });
      resolve();
    });
    const next = content().read({})[Symbol.asyncIterator]().next();
    await promise;
    expect((await failure(next)).code).toBe(Code.Unimplemented);
  });
});
