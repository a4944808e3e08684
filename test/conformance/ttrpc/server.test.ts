/** The server against frames by hand, and against the product's client. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, lstatSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { type LogFields, type Logger, silentLogger } from "../../../src/lib/log.ts";
import { BunkerdError, fail } from "../../../src/model/errors.ts";
import type { ObservedCall } from "../../../src/transport/registry.ts";
import { ttrpcTransport } from "../../../src/transport/ttrpc/client.ts";
import { TtrpcServer } from "../../../src/transport/ttrpc/server.ts";
import { removeFolder, run, temporaryFolder } from "../../support/processes.ts";
import {
  type Behaviour,
  Conformance,
  conformanceService,
  decodePayload,
  encodePayload,
} from "../grpc/service.ts";
import { type ConformanceClient, ofTexts, textsOf } from "./client.ts";
import {
  connectWire,
  DATA,
  frameBytes,
  NO_DATA,
  REMOTE_CLOSED,
  REMOTE_OPEN,
  REQUEST,
  readResponse,
  request,
  statusOf,
} from "./wire.ts";

const SERVICE = "bunkerd.conformance.v1.Conformance";
const MAX_MESSAGE_BYTES = 4 << 20;

async function startServer(behaviours: Record<string, Behaviour> = {}) {
  const folder = temporaryFolder();
  const path = join(folder, "s.sock");
  const observed: ObservedCall[] = [];
  const errors: { message: string; fields: LogFields | undefined }[] = [];
  const logger: Logger = { ...silentLogger, error: (message, fields) => errors.push({ message, fields }) };
  const { binding, seen } = conformanceService(behaviours);
  const server = new TtrpcServer(
    { path },
    { bindings: [binding], logger, observe: (call) => observed.push(call) },
  );
  await server.start();
  const transports: { close(): void }[] = [];
  return {
    server,
    path,
    seen,
    observed,
    errors,
    client() {
      const transport = ttrpcTransport({ connect: path });
      transports.push(transport);
      return createClient(Conformance, transport) as unknown as ConformanceClient;
    },
    async [Symbol.asyncDispose]() {
      for (const transport of transports) transport.close();
      await server.close(0);
      removeFolder(folder);
      for (let turn = 0; turn < 20 && seen.running > 0; turn++) await new Promise(setImmediate);
      expect({ openCalls: server.openCalls, running: seen.running, errors }).toEqual({
        openCalls: 0,
        running: 0,
        errors: [],
      });
    },
  };
}

const echo = (text: string) =>
  request({ service: SERVICE, method: "Echo", payload: encodePayload({ text }) });

const untilAborted: Behaviour = (_request, { signal }) =>
  signal.aborted ? undefined : new Promise((resolve) => signal.addEventListener("abort", resolve));

async function shown(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => "it did not fail",
    (reason: unknown) => reason,
  );
  return error instanceof ConnectError ? `${Code[error.code]}: ${error.rawMessage}` : String(error);
}

describe("calls", () => {
  test("all four kinds answer, side by side", async () => {
    await using server = await startServer();
    const client = server.client();
    const answers = await Promise.all([
      client.echo({ text: "a" }).then(({ text }) => text),
      client.collect(ofTexts("a", "b", "")).then(({ count }) => count),
      textsOf(client.spread({ data: new Uint8Array(3), count: 4 })).then((texts) => texts.length),
      textsOf(client.chat(ofTexts("x", "", "z"))),
    ]);
    expect(answers).toEqual(["a", 3, 4, ["x", "", "z"]]);
    expect(
      server.observed.map(({ method, protocol, code }) => `${protocol} ${method} ${code}`).sort(),
    ).toEqual(["ttrpc Chat OK", "ttrpc Collect OK", "ttrpc Echo OK", "ttrpc Spread OK"]);
  });

  test("the context has the metadata and the time left, and is the call's", async () => {
    await using server = await startServer();
    const client = server.client();
    await client.echo(
      {},
      {
        timeoutMs: 60_000,
        headers: [
          ["Containerd-Namespace-Ttrpc", "default"],
          ["k", "1"],
          ["k", "2"],
        ],
      },
    );
    const [context] = server.seen.contexts;
    expect(context?.requestHeader.get("containerd-namespace-ttrpc")).toBe("default");
    expect(new Headers(context?.requestHeader).get("k")).toBe("1, 2");
    expect(context?.timeoutMs()).toBeWithin(50_000, 60_001);
    expect([context?.protocolName, context?.method.name, context?.signal.aborted]).toEqual([
      "ttrpc",
      "Echo",
      true,
    ]);
    await client.echo({});
    expect(server.seen.contexts[1]?.timeoutMs()).toBeUndefined();
  });

  test("errors become statuses; what nobody expected is Unknown, and logged", async () => {
    await using server = await startServer({
      missing: () => Promise.reject(fail("NotFound", "container x")),
      odd: () => Promise.reject(new Error("odd")),
    });
    const client = server.client();
    expect(await shown(client.echo({ text: "missing" }))).toBe("NotFound: container x: not found");
    expect(await shown(textsOf(client.spread({ text: "missing" })))).toBe("NotFound: container x: not found");
    expect(await shown(client.collect(ofTexts("missing")))).toBe("NotFound: container x: not found");
    expect(await shown(client.echo({ text: "odd" }))).toBe("Unknown: odd");
    expect(server.errors.splice(0)).toMatchObject([
      { message: "rpc failed unexpectedly", fields: { method: "Echo" } },
    ]);
  });

  test("a deadline is answered, and the implementation told", async () => {
    await using server = await startServer({
      wait: untilAborted,
    });
    using wire = await connectWire(server.path);
    wire.send(
      1,
      REQUEST,
      0,
      request({
        service: SERVICE,
        method: "Echo",
        payload: encodePayload({ text: "wait" }),
        timeoutNano: 20_000_000n,
      }),
    );
    expect(statusOf(await wire.next())).toBe("4 context deadline exceeded");
    wire.send(
      3,
      REQUEST,
      0,
      request({
        service: SERVICE,
        method: "Echo",
        payload: encodePayload({ text: "wait" }),
        timeoutNano: -1n,
      }),
    );
    expect(statusOf(await wire.next())).toBe("4 context deadline exceeded");
  });

  test("an answer of more than 4 MiB fails its call alone", async () => {
    await using server = await startServer({
      grow: (payload) => {
        payload.data = new Uint8Array(MAX_MESSAGE_BYTES);
      },
    });
    const client = server.client();
    expect(await shown(client.echo({ text: "grow" }))).toMatch(
      /^ResourceExhausted: message length 41943\d\d exceed maximum message size of 4194304$/,
    );
    expect(await shown(textsOf(client.spread({ text: "grow", count: 1 })))).toMatch(
      /^ResourceExhausted: message length 41943\d\d exceed/,
    );
    expect((await client.echo({ text: "alive" })).text).toBe("alive");
  });
});

describe("what a client may not do", () => {
  test("is answered on the stream that did it, and the connection goes on", async () => {
    await using server = await startServer();
    using wire = await connectWire(server.path);
    const refusal = async (
      streamId: number,
      type: number,
      flags: number,
      data: Uint8Array,
    ): Promise<string> => {
      wire.send(streamId, type, flags, data);
      const frame = await wire.next();
      expect(frame.streamId).toBe(streamId);
      return statusOf(frame);
    };
    expect(await refusal(2, REQUEST, 0, echo("a"))).toBe(
      "3 StreamID must be odd for client initiated streams",
    );
    expect(await refusal(0, DATA, 0, echo("a"))).toBe("3 StreamID must be odd for client initiated streams");
    expect(await refusal(5, DATA, 0, echo("a"))).toBe("3 StreamID is no longer active");
    expect(await refusal(7, REQUEST, 0, echo("a"))).toBe("OK");
    expect(await refusal(7, REQUEST, 0, echo("a"))).toBe("3 StreamID cannot be re-used and must increment");
    expect(await refusal(5, REQUEST, 0, echo("a"))).toBe("3 StreamID cannot be re-used and must increment");
    expect(await refusal(9, REQUEST, 0, Buffer.from([0xff]))).toStartWith("3 unmarshal request error: ");
    expect(await refusal(11, REQUEST, 0, request({ service: "none", method: "Echo" }))).toBe(
      "12 service none",
    );
    expect(await refusal(13, REQUEST, 0, request({ service: SERVICE, method: "None" }))).toBe(
      "12 method None",
    );
    expect(
      await refusal(
        15,
        REQUEST,
        0,
        request({ service: SERVICE, method: "Echo", payload: Buffer.from([0x0a, 0x7f]) }),
      ),
    ).toStartWith("13 ttrpc: error unmarshalling payload: ");
    expect(await refusal(17, REQUEST, 0, Buffer.alloc(MAX_MESSAGE_BYTES + 1))).toBe(
      "8 message length 4194305 exceed maximum message size of 4194304",
    );
    wire.send(19, 2, 0, echo("a"));
    wire.send(19, 77, 255, echo("a"));
    expect(await refusal(19, REQUEST, 0, echo("a"))).toBe("OK");
  });

  test("data behind the end of a stream, or on a unary one, fails the call", async () => {
    await using server = await startServer({
      wait: untilAborted,
    });
    using wire = await connectWire(server.path);
    wire.send(1, REQUEST, 0, echo("wait"));
    wire.send(1, DATA, 0, encodePayload({}));
    expect(statusOf(await wire.next())).toBe("3 data handling error: ttrpc: stream closed");
    wire.send(3, REQUEST, REMOTE_OPEN, request({ service: SERVICE, method: "Collect" }));
    wire.send(3, DATA, 0, encodePayload({ text: "wait" }));
    wire.send(3, DATA, REMOTE_CLOSED | NO_DATA);
    wire.send(3, DATA, 0, encodePayload({}));
    expect(statusOf(await wire.next())).toBe("3 data handling error: ttrpc: stream closed");
  });

  test("an implementation that does not read holds the connection for a second, then its call fails", async () => {
    await using server = await startServer({
      wait: untilAborted,
    });
    using wire = await connectWire(server.path);
    wire.send(1, REQUEST, REMOTE_OPEN, request({ service: SERVICE, method: "Chat" }));
    wire.send(1, DATA, 0, encodePayload({ text: "wait" }));
    for (let count = 0; count < 2000; count++)
      wire.send(1, DATA, 0, encodePayload({ text: "x".repeat(1000) }));
    wire.send(3, REQUEST, 0, echo("behind"));
    const frames = [await wire.next()];
    while (frames.at(-1)?.streamId !== 3) frames.push(await wire.next());
    expect(statusOf(frames[0] ?? (frames[1] as never))).toBe(
      "3 data handling error: ttrpc: stream buffer full",
    );
    expect(decodePayload(readResponse(frames.at(-1) as never).payload).text).toBe("behind");
  });
});

test("requests by hand of every shape stream", async () => {
  await using server = await startServer();
  using wire = await connectWire(server.path);
  wire.send(
    1,
    REQUEST,
    REMOTE_OPEN,
    request({ service: SERVICE, method: "Chat", payload: encodePayload({ text: "first" }) }),
  );
  expect(decodePayload((await wire.next()).data).text).toBe("first");
  wire.send(1, DATA, REMOTE_CLOSED, encodePayload({ text: "last" }));
  expect(decodePayload((await wire.next()).data).text).toBe("last");
  expect(await wire.next()).toMatchObject({ streamId: 1, type: DATA, flags: REMOTE_CLOSED | NO_DATA });
  wire.send(3, REQUEST, REMOTE_CLOSED, request({ service: SERVICE, method: "Collect" }));
  expect(decodePayload(readResponse(await wire.next()).payload).count).toBe(0);
  wire.send(5, REQUEST, REMOTE_CLOSED, request({ service: SERVICE, method: "Spread" }));
  expect(await wire.next()).toMatchObject({ streamId: 5, type: DATA, flags: REMOTE_CLOSED | NO_DATA });
});

describe("the end of a connection", () => {
  test("cancels its calls", async () => {
    await using server = await startServer();
    const wire = await connectWire(server.path);
    wire.send(
      1,
      REQUEST,
      REMOTE_CLOSED,
      request({ service: SERVICE, method: "Spread", payload: encodePayload({ count: -1 }) }),
    );
    wire.send(3, REQUEST, REMOTE_OPEN, request({ service: SERVICE, method: "Collect" }));
    await server.seen.entered("Spread");
    await server.seen.entered("Collect");
    expect(server.server.openCalls).toBe(2);
    const left = server.seen.left();
    wire.socket.destroy();
    await left;
    while (server.seen.running > 0) await server.seen.left();
    expect(server.observed.map(({ code }) => code)).toEqual(["Canceled", "Canceled"]);
    expect(server.seen.contexts.every(({ signal }) => signal.aborted)).toBe(true);
  });

  test("within a frame leaves nothing", async () => {
    await using server = await startServer();
    const wire = await connectWire(server.path);
    wire.socket.end(frameBytes(1, REQUEST, 0, Buffer.from("short"), 1000));
    await wire.closed;
    expect(server.observed).toEqual([]);
    expect((await server.client().echo({ text: "alive" })).text).toBe("alive");
  });

  test("a client that takes no answers is asked no more", async () => {
    await using server = await startServer();
    using wire = await connectWire(server.path);
    wire.socket.pause();
    const data = new Uint8Array(64 << 10);
    const bytes = request({ service: SERVICE, method: "Echo", payload: encodePayload({ data }) });
    const total = 400;
    for (let count = 0; count < total; count++) wire.send(1 + 2 * count, REQUEST, 0, bytes);
    // What the kernel and both ends may hold is far below what was asked for.
    let [before, answered] = [-1, 0];
    while (answered > before) {
      before = answered;
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
      answered = server.observed.length;
    }
    expect(answered).toBeLessThan(total / 2);
    wire.socket.resume();
    for (let count = 0; count < total; count++) await wire.next();
    expect(server.observed).toHaveLength(total);
  });

  test("a reader of a stream that stops reading stops its producer", async () => {
    await using server = await startServer();
    using wire = await connectWire(server.path);
    wire.socket.pause();
    const payload = encodePayload({ data: new Uint8Array(64 << 10), count: 1000 });
    wire.send(1, REQUEST, REMOTE_CLOSED, request({ service: SERVICE, method: "Spread", payload }));
    let [before, yielded] = [-1, 0];
    while (yielded > before) {
      before = yielded;
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
      yielded = server.seen.yielded;
    }
    expect(yielded).toBeWithin(1, 500);
    wire.socket.resume();
    let frames = 0;
    while (((await wire.next()).flags & REMOTE_CLOSED) === 0) frames += 1;
    expect(frames).toBe(1000);
  });
});

describe("the server's end", () => {
  test("idle connections close at once, calls in flight are answered first", async () => {
    let answer = (): void => undefined;
    await using server = await startServer({
      wait: () =>
        new Promise<void>((resolve) => {
          answer = resolve;
        }),
    });
    using idle = await connectWire(server.path);
    using busy = await connectWire(server.path);
    busy.send(1, REQUEST, 0, echo("wait"));
    await server.seen.entered("Echo");
    const closed = server.server.close(60_000);
    await idle.closed;
    expect(existsSync(server.path)).toBe(false);
    answer();
    expect(statusOf(await busy.next())).toBe("OK");
    await busy.closed;
    await closed;
  });

  test("a call that outlasts the drain is cancelled", async () => {
    await using server = await startServer();
    using wire = await connectWire(server.path);
    wire.send(
      1,
      REQUEST,
      REMOTE_CLOSED,
      request({ service: SERVICE, method: "Spread", payload: encodePayload({ count: -1 }) }),
    );
    await server.seen.entered("Spread");
    const left = server.seen.left();
    await server.server.close(10);
    await wire.closed;
    await left;
  });
});

/** Sends a frame of stream 0, and prints what comes until 4 KiB or the end. */
const ASK = `$SIG{PIPE} = "IGNORE"; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!";
  syswrite($s, "\\0" x 8 . "\\1\\0"); sysread($s, my $answer, 4096); print $answer if defined $answer`;

describe("the socket", () => {
  test("is its owner's and group's, and a live one is not replaced", async () => {
    await using server = await startServer();
    expect(lstatSync(server.path).mode & 0o777).toBe(0o660);
    const second = new TtrpcServer({ path: server.path }, { bindings: [], logger: silentLogger });
    const error: unknown = await second.start().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(BunkerdError);
    expect(error).toMatchObject({ code: "AlreadyExists" });
    expect((await server.client().echo({ text: "alive" })).text).toBe("alive");
  });

  test("another user is refused, whatever the mode", async () => {
    if (process.geteuid?.() !== 0) {
      process.stdout.write("skipped: needs root to be another user\n");
      return;
    }
    await using server = await startServer();
    chmodSync(server.path, 0o666);
    chmodSync(join(server.path, ".."), 0o755);
    const ask = ["perl", "-MIO::Socket::UNIX", "-e", ASK, server.path];
    const own = await run(ask);
    expect(own).toMatchObject({ code: 0, stdout: expect.stringContaining("StreamID must be odd") });
    for (const id of ["--reuid=65534", "--regid=65534"]) {
      expect(await run(["setpriv", id, "--clear-groups", ...ask])).toMatchObject({ code: 0, stdout: "" });
    }
    expect(server.errors.splice(0)).toMatchObject([
      { message: "ttrpc: refusing connection after handshake", fields: { peer: { uid: 65534, gid: 0 } } },
      { message: "ttrpc: refusing connection after handshake", fields: { peer: { uid: 0, gid: 65534 } } },
    ]);
  });
});
