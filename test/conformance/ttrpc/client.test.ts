/** The client against a server that the test plays. */
import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ttrpcTransport } from "../../../src/transport/ttrpc/client.ts";
import { Conformance, encodePayload, type Payload } from "../grpc/service.ts";
import { type ConformanceClient, ofTexts, textsOf } from "./client.ts";
import {
  DATA,
  frameBytes,
  NO_DATA,
  type PlayedServer,
  playServer,
  REMOTE_CLOSED,
  REMOTE_OPEN,
  RESPONSE,
  response,
  type Wire,
} from "./wire.ts";

const MAX_MESSAGE_BYTES = 4 << 20;

/** A connected pair: the client's end by the product, the server's by hand. */
async function pair(server: PlayedServer) {
  const transport = ttrpcTransport({ connect: server.path });
  const client = createClient(Conformance, transport) as unknown as ConformanceClient;
  return { transport, client, wire: await server.accept() };
}

async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return error;
    throw error;
  }
  throw new Error("the call did not fail");
}

const shown = async (call: Promise<unknown>): Promise<string> => {
  const { code, rawMessage } = await errorOf(call);
  return `${Code[code]}: ${rawMessage}`;
};

const answer = (wire: Wire, streamId: number, payload: Partial<Payload>): void =>
  wire.send(streamId, RESPONSE, 0, response({ payload: encodePayload(payload) }));

describe("unary", () => {
  test("a request has the names, the payload, the time left and the metadata", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const headers: [string, string][] = [
      ["Containerd-Namespace-ttrpc", "näme ✓"],
      ["k", "1"],
      ["k", "2"],
    ];
    const call = client.echo({ text: "hello" }, { timeoutMs: 5000, headers });
    const { streamId, flags, request } = await wire.nextRequest();
    expect({ streamId, flags }).toEqual({ streamId: 1, flags: 0 });
    expect(request).toMatchObject({ service: "bunkerd.conformance.v1.Conformance", method: "Echo" });
    expect(request.payload).toEqual(encodePayload({ text: "hello" }));
    expect(request.timeoutNano).toBe(5_000_000_000n);
    expect(request.metadata.map(({ key, value }) => `${key}=${value}`)).toEqual([
      "containerd-namespace-ttrpc=näme ✓",
      "k=1",
      "k=2",
    ]);
    answer(wire, streamId, { text: "there" });
    expect((await call).text).toBe("there");
    transport.close();
  });

  test("answers find their calls in any order, by odd ids that grow", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const calls = ["a", "b", "c"].map((text) => client.echo({ text }));
    const ids = [await wire.next(), await wire.next(), await wire.next()].map(({ streamId }) => streamId);
    expect(ids).toEqual([1, 3, 5]);
    for (const id of ids.toReversed()) answer(wire, id, { text: String(id) });
    expect((await Promise.all(calls)).map(({ text }) => text)).toEqual(["1", "3", "5"]);
    transport.close();
  });

  test("a status becomes its code, message and details; an unknown code Unknown", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const details = [
      create(AnySchema, {
        typeUrl: "type.googleapis.com/google.protobuf.Duration",
        value: toBinary(DurationSchema, create(DurationSchema, { seconds: 7n })),
      }),
    ];
    const failed = errorOf(client.echo({}));
    wire.send(
      (await wire.next()).streamId,
      RESPONSE,
      0,
      response({ status: { code: 5, message: "no x: not found", details } }),
    );
    const error = await failed;
    expect([error.code, error.rawMessage]).toEqual([Code.NotFound, "no x: not found"]);
    expect(error.findDetails(DurationSchema)[0]?.seconds).toBe(7n);
    const unknown = shown(client.echo({}));
    wire.send((await wire.next()).streamId, RESPONSE, 0, response({ status: { code: 99, message: "odd" } }));
    expect(await unknown).toBe("Unknown: odd");
    const fine = client.echo({});
    wire.send(
      (await wire.next()).streamId,
      RESPONSE,
      0,
      response({ status: { code: 0 }, payload: encodePayload({ text: "ok" }) }),
    );
    expect((await fine).text).toBe("ok");
    transport.close();
  });

  test("an answer that is no response, or malformed, fails its own call alone", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const other = client.echo({});
    const { streamId } = await wire.next();
    const asData = shown(client.echo({}));
    wire.send((await wire.next()).streamId, DATA, 0, encodePayload({}));
    expect(await asData).toBe("Internal: unexpected message type 3 received: protocol error");
    const garbage = shown(client.echo({}));
    wire.send((await wire.next()).streamId, RESPONSE, 0, Buffer.from([0xff, 0xff]));
    expect(await garbage).toStartWith("Internal: ttrpc: error unmarshalling payload");
    const broken = shown(client.echo({}));
    wire.send((await wire.next()).streamId, RESPONSE, 0, response({ payload: Buffer.from([0x0a, 0x7f]) }));
    expect(await broken).toStartWith("Internal: ttrpc: error unmarshalling payload");
    answer(wire, 4711, {});
    answer(wire, streamId, { text: "alive" });
    expect((await other).text).toBe("alive");
    transport.close();
  });
});

describe("limits", () => {
  test("an answer of more than 4 MiB is dropped as it comes, and fails its call alone", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const other = client.echo({});
    const { streamId } = await wire.next();
    const failed = shown(client.echo({}));
    const tooLarge = Buffer.alloc(MAX_MESSAGE_BYTES + 1);
    wire.send((await wire.next()).streamId, RESPONSE, 0, tooLarge);
    expect(await failed).toBe(
      `ResourceExhausted: message length 4194305 exceed maximum message size of 4194304`,
    );
    answer(wire, streamId, { text: "alive" });
    expect((await other).text).toBe("alive");
    transport.close();
  });

  test("a request of more than 4 MiB is not sent; one of nearly that is", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    // Alone it would fit; with its names around it, not.
    expect(await shown(client.echo({ data: new Uint8Array(MAX_MESSAGE_BYTES - 20) }))).toMatch(
      /^ResourceExhausted: message length 41943\d\d exceed maximum message size of 4194304$/,
    );
    const call = client.echo({ data: new Uint8Array(MAX_MESSAGE_BYTES - 200) });
    const { streamId } = await wire.next();
    expect(streamId).toBe(1);
    answer(wire, streamId, { data: new Uint8Array(MAX_MESSAGE_BYTES - 200) });
    expect((await call).data).toHaveLength(MAX_MESSAGE_BYTES - 200);
    transport.close();
  });
});

describe("the end of a call", () => {
  test("a signal cancels the caller at once; the late answer is dropped", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const controller = new AbortController();
    const call = shown(client.echo({}, { signal: controller.signal }));
    const { streamId } = await wire.next();
    controller.abort();
    expect(await call).toBe("Canceled: context canceled");
    answer(wire, streamId, {});
    expect(await shown(client.echo({}, { signal: controller.signal }))).toBe("Canceled: context canceled");
    const next = client.echo({});
    answer(wire, (await wire.next()).streamId, { text: "next" });
    expect((await next).text).toBe("next");
    transport.close();
  });

  test("a deadline ends the call; one that has passed sends nothing", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    expect(await shown(client.echo({}, { timeoutMs: 0 }))).toBe(
      "DeadlineExceeded: context deadline exceeded",
    );
    const call = shown(client.echo({}, { timeoutMs: 20 }));
    const { streamId, request } = await wire.nextRequest();
    expect({ streamId, timeoutNano: request.timeoutNano }).toEqual({ streamId: 1, timeoutNano: 20_000_000n });
    expect(await call).toBe("DeadlineExceeded: context deadline exceeded");
    expect(await shown(client.echo({}, { signal: AbortSignal.timeout(5) }))).toStartWith("DeadlineExceeded");
    transport.close();
  });

  test("a closed connection fails every call that waits, and all that come", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const calls = [client.echo({}), client.echo({}), textsOf(client.spread({}))].map(shown);
    for (const _ of calls) await wire.next();
    wire.socket.end();
    expect(await Promise.all(calls)).toEqual(Array(3).fill("Unavailable: ttrpc: closed"));
    expect(await transport.closed).toBeUndefined();
    expect(await shown(client.echo({}))).toBe("Unavailable: ttrpc: closed");
  });

  test("a connection that ends within a frame says so", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const call = shown(client.echo({}));
    await wire.next();
    wire.socket.end(frameBytes(1, RESPONSE, 0, Buffer.from("short"), 100));
    expect(await call).toBe("Unavailable: ttrpc: closed");
    expect((await transport.closed)?.message).toBe("unexpected EOF");
  });

  test("our own close is the same for the calls, and no error", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const call = shown(client.echo({}));
    await wire.next();
    transport.close();
    expect(await call).toBe("Unavailable: ttrpc: closed");
    expect(await transport.closed).toBeUndefined();
    await wire.closed;
  });

  test("a server that is not there fails the calls, with the path and the reason", async () => {
    const transport = ttrpcTransport({ connect: "unix:///nowhere/at/all.sock" });
    const client = createClient(Conformance, transport) as unknown as ConformanceClient;
    const message = await shown(client.echo({}));
    expect(message).toStartWith('Unavailable: failed to dial "/nowhere/at/all.sock": ');
    expect(message).toContain("ENOENT");
    expect(await transport.closed).toMatchObject({ code: "ENOENT" });
  });
});

test("an abstract socket is connected to", async () => {
  await using server = await playServer(`\0bunkerd-test-${process.pid}`);
  const { client, transport, wire } = await pair(server);
  const call = client.echo({});
  answer(wire, (await wire.next()).streamId, { text: "abstract" });
  expect((await call).text).toBe("abstract");
  transport.close();
});

describe("streams", () => {
  test("answers are read in order until the server closes", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const texts = textsOf(client.spread({ text: "go" }));
    const { streamId, flags, request } = await wire.nextRequest();
    expect({ flags, payload: request.payload }).toEqual({
      flags: REMOTE_CLOSED,
      payload: encodePayload({ text: "go" }),
    });
    for (const text of ["a", "b", ""]) wire.send(streamId, DATA, 0, encodePayload({ text }));
    wire.send(streamId, DATA, REMOTE_CLOSED | NO_DATA);
    expect(await texts).toEqual(["a", "b", ""]);
    transport.close();
  });

  test("the last answer may close the stream, or be an empty response", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const closing = textsOf(client.spread({}));
    wire.send((await wire.next()).streamId, DATA, REMOTE_CLOSED, encodePayload({ text: "last" }));
    expect(await closing).toEqual(["last"]);
    const responding = textsOf(client.spread({}));
    const { streamId } = await wire.next();
    wire.send(streamId, DATA, 0, encodePayload({ text: "only" }));
    wire.send(streamId, RESPONSE, 0, response({}));
    expect(await responding).toEqual(["only"]);
    transport.close();
  });

  test("a status ends a stream behind the answers that came", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const answers = client.spread({})[Symbol.asyncIterator]();
    const first = answers.next();
    const { streamId } = await wire.next();
    wire.send(streamId, DATA, 0, encodePayload({ text: "a" }));
    wire.send(streamId, RESPONSE, 0, response({ status: { code: 8, message: "enough" } }));
    expect((await first).value?.text).toBe("a");
    expect(await shown(answers.next())).toBe("ResourceExhausted: enough");
    transport.close();
  });

  test("requests are sent as data, then the end; one response answers", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const call = client.collect(ofTexts("a", ""));
    const { streamId, flags, request } = await wire.nextRequest();
    expect({ flags, payload: request.payload.length }).toEqual({ flags: REMOTE_OPEN, payload: 0 });
    const frames = [await wire.next(), await wire.next(), await wire.next()];
    expect(frames.map(({ type, flags, data }) => [type, flags, data.length])).toEqual([
      [DATA, 0, encodePayload({ text: "a" }).length],
      [DATA, 0, 0],
      [DATA, REMOTE_CLOSED | NO_DATA, 0],
    ]);
    answer(wire, streamId, { count: 2 });
    expect((await call).count).toBe(2);
    const wrong = shown(client.collect(ofTexts()));
    wire.send((await wire.next()).streamId, DATA, 0, encodePayload({}));
    expect(await wrong).toBe("Internal: received data from non-streaming server: protocol error");
    transport.close();
  });

  test("both directions flow at once; a reader that stops ends the call", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const answers = client.chat(ofTexts("a", "b"))[Symbol.asyncIterator]();
    const { streamId } = await wire.next();
    for (let count = 0; count < 2; count++) {
      const pending = answers.next();
      wire.send(streamId, DATA, 0, (await wire.next()).data);
      expect((await pending).value?.text).toBe("ab"[count]);
    }
    await answers.return?.();
    wire.send(streamId, DATA, 0, encodePayload({}));
    const next = client.echo({});
    let frame = await wire.next();
    if (frame.type === DATA) frame = await wire.next();
    answer(wire, frame.streamId, { text: "next" });
    expect((await next).text).toBe("next");
    transport.close();
  });

  test("a failing source of requests fails the call", async () => {
    await using server = await playServer();
    const { client, transport } = await pair(server);
    const broken = (async function* (): AsyncGenerator<Partial<Payload>> {
      yield { text: "a" };
      throw new Error("the source broke");
    })();
    expect(await shown(client.collect(broken))).toBe("Internal: the source broke");
    transport.close();
  });

  test("a slow reader holds the connection for a second, then loses its stream, not the others", async () => {
    await using server = await playServer();
    const { client, transport, wire } = await pair(server);
    const answers = client.spread({})[Symbol.asyncIterator]();
    const first = answers.next();
    const { streamId } = await wire.next();
    const other = client.echo({});
    const echo = await wire.next();
    for (let count = 0; count < 5000; count++)
      wire.send(streamId, DATA, 0, encodePayload({ text: "x".repeat(1000) }));
    answer(wire, echo.streamId, { text: "behind" });
    await first;
    expect((await other).text).toBe("behind");
    const outcome = await shown(
      (async () => {
        for (;;) if ((await answers.next()).done) return;
      })(),
    );
    expect(outcome).toBe("ResourceExhausted: ttrpc: stream buffer full");
    transport.close();
  });
});
