/** What real clients of gRPC do beyond sending messages of every size, which `../clients` shows. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { type Client, createClient } from "@connectrpc/connect";
import { compressionGzip, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "#gen/grpc/health/v1/health_pb.ts";
import { connectGrpc, errorOf } from "../../support/grpc.ts";
import { run } from "../../support/processes.ts";
import { payloadOf, SIZES } from "../clients/sizes.ts";
import { ENGINES, startServer, type TestServer } from "./server.ts";
import { Conformance, decodePayload, encodePayload, type Payload, pathOf } from "./service.ts";

const same = (bytes: Uint8Array): Buffer => Buffer.from(bytes);

function grpcJs(server: TestServer): grpc.Client {
  return new grpc.Client(`unix:${server.path}`, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
  });
}

interface Ended {
  readonly messages: Payload[];
  readonly code: number;
  readonly details: string;
}

/** Drives a stream of grpc-js to its status. */
function ended(call: grpc.ClientReadableStream<Buffer>): Promise<Ended> {
  return new Promise((resolve) => {
    const messages: Payload[] = [];
    call.on("data", (message: Buffer) => messages.push(decodePayload(message)));
    call.on("error", () => undefined);
    call.on("status", ({ code, details }) => resolve({ messages, code, details }));
  });
}

function unary(client: grpc.Client, rpc: string, request: Uint8Array): Promise<Ended> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(pathOf(rpc), same, same, Buffer.from(request), (error, answer) => {
      const messages = answer === undefined ? [] : [decodePayload(answer)];
      resolve({ messages, code: error?.code ?? 0, details: error?.details ?? "" });
    });
  });
}

for (const [name, engine] of ENGINES) {
  describe(`${name}: @grpc/grpc-js`, () => {
    test("answers that were encoded before, of every size", async () => {
      await using server = await startServer(engine);
      const client = grpcJs(server);
      for (const size of SIZES) {
        const request = payloadOf(size);
        const answer = await unary(client, "EchoEncoded", request);
        expect(answer).toMatchObject({ code: 0, messages: [{ count: 0 }] });
        expect(answer.messages[0]?.data.length).toBe(decodePayload(request).data.length);
      }
      const request = Buffer.from(encodePayload({ data: new Uint8Array(1 << 20), count: 20 }));
      const call = client.makeServerStreamRequest(pathOf("SpreadEncoded"), same, same, request);
      const spread = await ended(call);
      expect(spread.code).toBe(0);
      expect(spread.messages.map(({ count }) => count)).toEqual([...Array(20).keys()]);
      client.close();
    }, 60_000);

    test("bidi messages are answered one by one, before the client ends", async () => {
      await using server = await startServer(engine);
      const client = grpcJs(server);
      const chat = client.makeBidiStreamRequest(pathOf("Chat"), same, same);
      const counts: number[] = [];
      chat.on("data", (message: Buffer) => {
        const { count } = decodePayload(message);
        counts.push(count);
        if (count === 5) chat.end();
        else chat.write(Buffer.from(encodePayload({ count: count + 1 })));
      });
      const status = new Promise<grpc.StatusObject>((resolve) => chat.on("status", resolve));
      chat.write(Buffer.from(encodePayload({ count: 1 })));
      expect((await status).code).toBe(0);
      expect(counts).toEqual([1, 2, 3, 4, 5]);
      client.close();
    });

    test("an idle stream shows its headers, and cancelling it reaches the server", async () => {
      await using server = await startServer(engine);
      const client = grpcJs(server);
      const request = Buffer.from(encodePayload({ count: -1 }));
      const call = client.makeServerStreamRequest(pathOf("Spread"), same, same, request);
      const finished = ended(call);
      await new Promise((resolve) => call.on("metadata", resolve));
      const left = server.seen.left();
      call.cancel();
      expect((await finished).code).toBe(1);
      await left;
      client.close();
    });
  });

  describe(`${name}: Connect's gRPC transport`, () => {
    test("unary, streams, errors and gzip", async () => {
      await using server = await startServer(engine);
      await using connection = connectGrpc(server.path);
      const health = connection.client(Health);
      expect((await health.check({})).status).toBe(Serving.SERVING);
      expect(await errorOf(health.check({ service: "x" }))).toEqual({ code: 5, message: "unknown service" });
      const abort = new AbortController();
      const watch = health.watch({}, { signal: abort.signal })[Symbol.asyncIterator]();
      expect((await watch.next()).value?.status).toBe(Serving.SERVING);
      server.health.set("", "notServing");
      expect((await watch.next()).value?.status).toBe(Serving.NOT_SERVING);
      abort.abort();
      expect(await errorOf(watch.next())).toMatchObject({ code: 1 });
      await using sessions = sessionsOf(server);
      const transport = createGrpcTransport({
        baseUrl: "http://localhost",
        sessionManager: sessions.manager,
        sendCompression: compressionGzip,
      });
      const client = createClient(Conformance, transport) as unknown as Client<typeof Health>;
      const echo = (client as unknown as { echo(request: object): Promise<Payload> }).echo;
      const answer = await echo({ data: Buffer.alloc(100_000, "bunkerd"), text: "" });
      expect(answer.data.length).toBe(100_000);
    });

    test("a client's deadline is the server's", async () => {
      await using server = await startServer(engine);
      await using connection = connectGrpc(server.path);
      const left = server.seen.left();
      const spread = connection.client(Conformance) as unknown as {
        spread(request: object, options: object): AsyncIterable<Payload>;
      };
      const stream = spread.spread({ count: -1 }, { timeoutMs: 50 })[Symbol.asyncIterator]();
      expect(await errorOf(stream.next())).toMatchObject({ code: 4 });
      await left;
      expect(server.seen.contexts[0]?.signal.aborted).toBe(true);
    });
  });

  describe(`${name}: command line`, () => {
    const buf = ["node_modules/.bin/buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge"];

    test("buf curl needs no proto files: both versions of reflection", async () => {
      await using server = await startServer(engine);
      const at = [...buf, "--unix-socket", server.path];
      for (const version of ["grpc-v1", "grpc-v1alpha"]) {
        const listed = await run([
          ...at,
          "--reflect-protocol",
          version,
          "--list-services",
          "http://localhost",
        ]);
        expect(listed.stdout.trim().split("\n")).toEqual([
          "bunkerd.conformance.v1.Conformance",
          "grpc.health.v1.Health",
          "grpc.reflection.v1.ServerReflection",
          "grpc.reflection.v1alpha.ServerReflection",
        ]);
        const call = [
          ...at,
          "--reflect-protocol",
          version,
          "-d",
          '{"count":3}',
          `http://localhost${pathOf("Spread")}`,
        ];
        const spread = await run(call);
        expect(spread.stdout.replaceAll(/\s/g, "")).toBe('{}{"count":1}{"count":2}');
      }
      const unknown = await run([
        ...at,
        "-d",
        '{"service":"x"}',
        "http://localhost/grpc.health.v1.Health/Check",
      ]);
      expect(JSON.parse(unknown.stderr)).toEqual({ code: "not_found", message: "unknown service" });
    }, 30_000);

    test("h2load sends thousands of calls over many connections", async () => {
      await using server = await startServer(engine);
      const body = `${server.folder}/body`;
      await Bun.write(body, Uint8Array.of(0, 0, 0, 0, 0));
      const loaded = await run([
        "h2load",
        "-n",
        "4000",
        "-c",
        "8",
        "-m",
        "16",
        "-d",
        body,
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        `--base-uri=unix:${server.path}`,
        `http://localhost${pathOf("Echo")}`,
      ]);
      expect(loaded.stdout).toContain("4000 succeeded, 0 failed, 0 errored");
      expect(server.observed.filter(({ code }) => code === "OK")).toHaveLength(4000);
    }, 30_000);
  });
}

function sessionsOf(server: TestServer): AsyncDisposable & { manager: Http2SessionManager } {
  const manager = new Http2SessionManager(
    "http://localhost",
    {},
    { createConnection: () => connect(server.path) },
  );
  return { manager, [Symbol.asyncDispose]: async () => manager.abort() };
}
