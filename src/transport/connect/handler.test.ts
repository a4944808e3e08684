import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, createServer, request as httpRequest, type Server } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type HandlerContext, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  Content,
  WriteAction,
  WriteContentResponseSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Streaming } from "#gen/containerd/services/streaming/v1/streaming_pb.ts";
import { type LogFields, silentLogger } from "../../lib/log.ts";
import { fail } from "../../model/errors.ts";
import { bind, type ObservedCall } from "../registry.ts";
import { createConnectHandler } from "./handler.ts";

const SPEC = {
  typeUrl: "types.containerd.io/Spec",
  value: new TextEncoder().encode('{"n":18446744073709551615}'),
};
const folder = mkdtempSync(join(tmpdir(), "bunkerd-connect-"));
const socketPath = join(folder, "s.sock");

const observed: ObservedCall[] = [];
const logged: LogFields[] = [];
/** Resolves with the context of the next call of Subscribe or Delete. */
let nextCall = Promise.withResolvers<HandlerContext>();

const bindings = [
  bind(Containers, {
    get(request, context) {
      const namespace = context.requestHeader.get("containerd-namespace");
      if (namespace === null) throw fail("FailedPrecondition", "namespace is required");
      if (request.id === "none") throw fail("NotFound", `container "none" in namespace "${namespace}"`);
      if (request.id === "patient") return Bun.sleep(20).then(() => ({ container: { id: request.id } }));
      if (request.id === "bug") throw new TypeError("not a function");
      return { container: { id: request.id, image: namespace, spec: SPEC } };
    },
    create: (request) => ({ container: request.container ?? {} }),
    list: () => ({
      containers: Array.from({ length: 100 }, (_, at) => ({ id: `c${at}`, image: "x".repeat(100_000) })),
    }),
    async *listStream(request) {
      for (let at = 0; at < 3; at++)
        yield { container: { id: `c${at}`, spec: SPEC, image: request.filters.join() } };
      if (request.filters.includes("fail")) throw fail("DataLoss", "page 7");
    },
    delete(_request, context) {
      nextCall.resolve(context);
      return new Promise(() => undefined);
    },
  }),
  bind(Content, {
    async *write(requests) {
      let offset = 0n;
      for await (const request of requests) {
        offset += BigInt(request.data.length);
        yield create(WriteContentResponseSchema, { action: WriteAction.WRITE, offset });
      }
    },
  }),
  bind(Events, {
    async *subscribe(_request, context) {
      nextCall.resolve(context);
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve, { once: true }));
      yield* [];
    },
  }),
];

const logger = { ...silentLogger, error: (_: string, fields?: LogFields) => void logged.push(fields ?? {}) };
const handler = createConnectHandler({ bindings, logger, observe: (call) => void observed.push(call) });
let server: Server;

beforeAll(async () => {
  server = createServer(handler.handleHttp1);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

const GET = "/containerd.services.containers.v1.Containers/Get";
const LIST_STREAM = "/containerd.services.containers.v1.Containers/ListStream";
const DELETE = "/containerd.services.containers.v1.Containers/Delete";
const SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe";
const JSON_TYPE = { "content-type": "application/json", "containerd-namespace": "default" };
const STREAM_TYPE = { "content-type": "application/connect+json", "containerd-namespace": "default" };

function call(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`http://localhost${path}`, { method: "POST", headers: JSON_TYPE, ...init, unix: socketPath });
}

function envelope(json: string): Uint8Array<ArrayBuffer> {
  const data = new TextEncoder().encode(json);
  const framed = new Uint8Array(5 + data.length);
  new DataView(framed.buffer).setUint32(1, data.length);
  framed.set(data, 5);
  return framed;
}

function envelopes(body: ArrayBuffer): { end: boolean; json: unknown }[] {
  const found: { end: boolean; json: unknown }[] = [];
  for (let at = 0; at < body.byteLength; ) {
    const head = new DataView(body, at, 5);
    const data = new Uint8Array(body, at + 5, head.getUint32(1));
    found.push({ end: head.getUint8(0) === 2, json: JSON.parse(new TextDecoder().decode(data)) });
    at += 5 + data.length;
  }
  return found;
}

describe("unary", () => {
  test("JSON by POST, an Any's JSON character by character", async () => {
    const response = await call(GET, { body: '{"id":"web"}' });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(await response.text()).toBe(
      '{"container":{"id":"web","image":"default","spec":{"@type":"types.containerd.io/Spec","value":{"n":18446744073709551615}}}}',
    );
    expect(observed.at(-1)).toMatchObject({
      service: "containerd.services.containers.v1.Containers",
      method: "Get",
      protocol: "connect",
      code: "OK",
    });
  });

  test("JSON by GET", async () => {
    const query = `?encoding=json&message=${encodeURIComponent('{"id":"a b+c%"}')}`;
    const response = await call(GET + query, { method: "GET" });
    expect(await response.json()).toMatchObject({ container: { id: "a b+c%" } });
  });

  test("a spec given as JSON arrives and comes back the same", async () => {
    const body =
      '{"container":{"id":"a","spec":{"@type":"x/Spec","value":{"rlimit": 18446744073709551615 }}}}';
    const response = await call("/containerd.services.containers.v1.Containers/Create", { body });
    expect(await response.text()).toBe(body);
  });

  test("a big answer", async () => {
    const response = await call("/containerd.services.containers.v1.Containers/List", { body: "{}" });
    const { containers } = (await response.json()) as { containers: unknown[] };
    expect(containers.length).toBe(100);
  });
});

describe("errors", () => {
  const errors: readonly (readonly [string, string, RequestInit, number, string, string])[] = [
    [
      "of the service",
      GET,
      { body: '{"id":"none"}' },
      404,
      "not_found",
      'container "none" in namespace "default": not found',
    ],
    [
      "a missing namespace",
      GET,
      { body: "{}", headers: { "content-type": "application/json" } },
      400,
      "failed_precondition",
      "namespace is required: failed precondition",
    ],
    ["a bug", GET, { body: '{"id":"bug"}' }, 500, "unknown", "not a function"],
    [
      "no JSON",
      GET,
      { body: '{"id":}' },
      400,
      "invalid_argument",
      'request is not JSON: line 1, column 7: expected a value, found "}": invalid argument',
    ],
    [
      "no UTF-8",
      GET,
      { body: Uint8Array.of(0x22, 0xff, 0x22) },
      400,
      "invalid_argument",
      "request is not JSON: it is not UTF-8",
    ],
    [
      "an unknown field",
      GET,
      { body: '{"name":1}' },
      400,
      "invalid_argument",
      'cannot decode message containerd.services.containers.v1.GetContainerRequest from JSON: key "name" is unknown: invalid argument',
    ],
    [
      "a method that is not implemented",
      "/containerd.services.containers.v1.Containers/Update",
      { body: "{}" },
      501,
      "unimplemented",
      "method Update not implemented",
    ],
    [
      "an unknown method",
      "/containerd.services.containers.v1.Containers/Nope",
      { body: "{}" },
      501,
      "unimplemented",
      "unknown method Nope for service containerd.services.containers.v1.Containers",
    ],
    [
      "an unknown path",
      "/v2/%zz",
      { body: "{}" },
      404,
      "unimplemented",
      'nothing is served at "/v2/%zz": paths are /package.Service/Method, listed by gRPC reflection and by "bunkerd openapi"',
    ],
    [
      "a wrong content-type",
      GET,
      { body: "{}", headers: { "content-type": "text/plain" } },
      415,
      "invalid_argument",
      `${GET}: content-type "text/plain" is not served: use application/json, application/proto, application/grpc-web+proto, application/grpc-web+json`,
    ],
    [
      "a unary content-type for a stream",
      LIST_STREAM,
      { body: "{}" },
      415,
      "invalid_argument",
      `${LIST_STREAM} streams: use content-type application/connect+json, application/connect+proto, application/grpc-web+proto, application/grpc-web+json`,
    ],
    ["PUT", GET, { method: "PUT", body: "{}" }, 405, "unimplemented", `PUT ${GET}: use POST`],
    [
      "GET of what has side effects",
      `${DELETE}?encoding=json&message=%7B%7D`,
      { method: "GET" },
      405,
      "unimplemented",
      `GET ${DELETE}: use POST`,
    ],
    [
      "GET without encoding",
      `${GET}?message=%7B%7D`,
      { method: "GET" },
      400,
      "invalid_argument",
      `GET ${GET}: want ?encoding=json&message={...}, got encoding ""`,
    ],
    [
      "GET with bad percent-encoding",
      `${GET}?encoding=json&message=%7`,
      { method: "GET" },
      400,
      "invalid_argument",
      `GET ${GET}: the value of "message" is not percent-encoded UTF-8`,
    ],
    [
      "an oversize message",
      GET,
      { body: `{"id":"${"x".repeat(17 << 20)}"}` },
      429,
      "resource_exhausted",
      `message size ${(17 << 20) + 9} is larger than configured readMaxBytes ${16 << 20}`,
    ],
    [
      "a timeout that is none",
      GET,
      { body: "{}", headers: { ...JSON_TYPE, "connect-timeout-ms": "soon" } },
      400,
      "invalid_argument",
      "protocol error: invalid connect timeout value: soon",
    ],
    [
      "an unknown compression",
      GET,
      { body: "{}", headers: { ...JSON_TYPE, "content-encoding": "br" } },
      501,
      "unimplemented",
      'unknown compression "br": supported encodings are gzip',
    ],
    [
      "binary that is none",
      GET,
      { body: "\xff", headers: { ...JSON_TYPE, "content-type": "application/proto" } },
      500,
      "internal",
      "parse binary: ",
    ],
  ];
  for (const [name, path, init, status, code, message] of errors) {
    test(name, async () => {
      const before = observed.length;
      const response = await call(path, init);
      expect(response.headers.get("content-type")).toBe("application/json");
      const error = (await response.json()) as { code: string; message: string };
      expect({ ...error, status: response.status }).toMatchObject({
        code,
        message: expect.stringContaining(message),
        status,
      });
      expect(observed.length).toBe(before + 1);
      expect(observed.at(-1)?.code).not.toBe("OK");
      const next = await call(GET, { body: '{"id":"still here"}' });
      expect(next.status).toBe(200);
    });
  }

  test("only a bug is logged, with its stack", async () => {
    logged.length = 0;
    await call(GET, { body: '{"id":"none"}' });
    expect(logged).toEqual([]);
    await call(GET, { body: '{"id":"bug"}' });
    expect(logged).toEqual([expect.objectContaining({ method: "Get", error: expect.any(TypeError) })]);
  });

  test("a deadline ends a call whose implementation does not listen", async () => {
    const response = await call(DELETE, {
      body: "{}",
      headers: { ...JSON_TYPE, "connect-timeout-ms": "50" },
    });
    expect(response.status).toBe(504);
    expect(await response.json()).toEqual({
      code: "deadline_exceeded",
      message: "context deadline exceeded",
    });
    expect(observed.at(-1)?.code).toBe("DeadlineExceeded");
  });

  test("a timeout past what timers can wait is none", async () => {
    for (const timeout of ["9999999999", "60000"]) {
      const headers = { ...JSON_TYPE, "connect-timeout-ms": timeout };
      expect((await call(GET, { body: '{"id":"patient"}', headers })).status).toBe(200);
    }
  });

  test("a large body that nobody reads leaves the connection usable", async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const post = (path: string, body: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const request = httpRequest(
          { agent, socketPath, path, method: "POST", headers: JSON_TYPE },
          (response) => {
            response.resume().once("end", () => resolve(response.statusCode));
          },
        );
        request.once("error", reject).end(body);
      });
    for (const path of ["/nope", GET, "/nope"])
      expect(await post(path, "x".repeat(20 << 20))).toBeGreaterThan(400);
    expect(await post(GET, '{"id":"a"}')).toBe(200);
    agent.destroy();
  });

  test("HTTP/1.0 without a host is served", async () => {
    const socket = connect(socketPath);
    const body = '{"id":"old"}';
    const head = "content-type: application/json\r\ncontainerd-namespace: default\r\n";
    socket.write(`POST ${GET} HTTP/1.0\r\n${head}content-length: ${body.length}\r\n\r\n${body}`);
    let text = "";
    for await (const chunk of socket) text += String(chunk);
    expect(text).toStartWith("HTTP/1.");
    expect(text).toContain('{"container":{"id":"old"');
  });
});

describe("streams", () => {
  test("of the server, JSON", async () => {
    const response = await call(LIST_STREAM, { headers: STREAM_TYPE, body: envelope('{"filters":["x"]}') });
    expect(response.headers.get("content-type")).toBe("application/connect+json");
    expect(envelopes(await response.arrayBuffer())).toEqual([
      ...[0, 1, 2].map((at) => ({
        end: false,
        json: expect.objectContaining({ container: expect.objectContaining({ id: `c${at}` }) }),
      })),
      { end: true, json: {} },
    ]);
    expect(observed.at(-1)).toMatchObject({ method: "ListStream", code: "OK" });
  });

  test("an error behind messages", async () => {
    const response = await call(LIST_STREAM, {
      headers: STREAM_TYPE,
      body: envelope('{"filters":["fail"]}'),
    });
    const found = envelopes(await response.arrayBuffer());
    expect(found.length).toBe(4);
    expect(found.at(-1)).toEqual({
      end: true,
      json: { error: { code: "data_loss", message: "page 7: data loss" } },
    });
    expect(observed.at(-1)?.code).toBe("DataLoss");
  });

  const refused: readonly (readonly [string, string, Uint8Array<ArrayBuffer>, string])[] = [
    ["no JSON", LIST_STREAM, envelope("{"), "invalid_argument"],
    ["no message", LIST_STREAM, new Uint8Array(), "unimplemented"],
    ["a cut envelope", LIST_STREAM, envelope("{}").slice(0, 6), "invalid_argument"],
    [
      "an envelope over the limit",
      LIST_STREAM,
      Uint8Array.of(0, 0xff, 0xff, 0xff, 0xff),
      "resource_exhausted",
    ],
    [
      "an unknown method",
      "/containerd.services.containers.v1.Containers/Nope",
      envelope("{}"),
      "unimplemented",
    ],
  ];
  for (const [name, path, body, code] of refused) {
    test(`${name} is an end of stream with ${code}`, async () => {
      const response = await call(path, { headers: STREAM_TYPE, body });
      expect(response.status).toBe(200);
      const found = envelopes(await response.arrayBuffer());
      expect(found).toEqual([{ end: true, json: { error: expect.objectContaining({ code }) } }]);
    });
  }

  test("of both sides, half duplex on HTTP/1.1", async () => {
    const body = Buffer.concat([envelope('{"data":"YWJj"}'), envelope('{"data":"YWJj"}')]);
    const response = await call("/containerd.services.content.v1.Content/Write", {
      headers: STREAM_TYPE,
      body,
    });
    expect(envelopes(await response.arrayBuffer())).toEqual([
      { end: false, json: { action: "WRITE", offset: "3" } },
      { end: false, json: { action: "WRITE", offset: "6" } },
      { end: true, json: {} },
    ]);
  });

  test("an idle stream shows its headers, and hears when the client goes", async () => {
    nextCall = Promise.withResolvers();
    const request = httpRequest({ socketPath, path: SUBSCRIBE, method: "POST", headers: STREAM_TYPE });
    request.on("error", () => undefined);
    const answered = new Promise<number | undefined>((resolve) =>
      request.once("response", (response) => resolve(response.statusCode)),
    );
    request.end(envelope("{}"));
    expect(await answered).toBe(200);
    const { signal } = await nextCall.promise;
    expect(signal.aborted).toBe(false);
    const gone = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    const before = observed.length;
    request.destroy();
    await gone;
    while (observed.length === before) await new Promise((resolve) => setImmediate(resolve));
    expect(observed.slice(before)).toEqual([
      expect.objectContaining({ method: "Subscribe", code: "Canceled" }),
    ]);
  });

  test("a client that leaves a unary call aborts it", async () => {
    nextCall = Promise.withResolvers();
    const client = new AbortController();
    const answer = call(DELETE, { body: "{}", signal: client.signal }).catch((error: Error) => error.name);
    const { signal } = await nextCall.promise;
    const gone = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    client.abort();
    await gone;
    expect(await answer).toBe("AbortError");
  });
});

describe("Connect's own clients", () => {
  const transports: readonly (readonly [string, Transport])[] = [
    ["connect, binary", createConnectTransport(options(true))],
    ["connect, JSON", createConnectTransport({ ...options(false), jsonOptions: {} })],
    ["gRPC-Web, binary", createGrpcWebTransport(options(true))],
  ];
  function options(useBinaryFormat: boolean) {
    const nodeOptions = { socketPath };
    return { baseUrl: "http://localhost", httpVersion: "1.1" as const, nodeOptions, useBinaryFormat };
  }
  for (const [name, transport] of transports) {
    test(name, async () => {
      const headers = { "containerd-namespace": "n" };
      const client = createClient(Content, transport);
      const write = async function* () {
        yield { data: Uint8Array.of(1) };
        yield { data: Uint8Array.of(1, 2) };
      };
      const offsets: bigint[] = [];
      for await (const message of client.write(write(), { headers })) offsets.push(message.offset);
      expect(offsets).toEqual([1n, 3n]);
      const containers = createClient(Containers, transport);
      const error = await containers.get({ id: "none" }, { headers }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConnectError);
      expect(error).toMatchObject({
        code: Code.NotFound,
        rawMessage: 'container "none" in namespace "n": not found',
      });
      const unknown = await createClient(Streaming, transport)
        .stream(empty(), { headers })
        [Symbol.asyncIterator]()
        .next()
        .catch((thrown: unknown) => thrown);
      expect(unknown).toMatchObject({ code: Code.Unimplemented });
      if (name.includes("JSON")) return;
      expect((await containers.get({ id: "a" }, { headers })).container?.spec?.value).toEqual(SPEC.value);
      expect((await containers.list({})).containers.length).toBe(100);
    });
  }
});

async function* empty(): AsyncGenerator<never> {
  yield* [];
}
