/**
 * Every method that the daemon serves, found by its descriptors: called as Connect JSON (`application/connect+json` where it streams) with an empty
 * request and with one that has every field, and as gRPC with the same; the two must answer the same. Each way has a daemon of its own,
 * so that both meet the same state.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { API_SERVICES } from "../../src/daemon/api.ts";
import { jsonCodec } from "../../src/transport/connect/json.ts";
import { anyTypes } from "../../src/transport/connect/types.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { sampleRequest } from "../support/sample-request.ts";

/** What a call ended with: the messages that came, and the error behind them. */
interface Outcome {
  readonly messages: readonly unknown[];
  readonly error?: { readonly code: string; readonly message: string };
}

/** Streams that stay open until the caller goes: enough that they begin. */
const ENDLESS: ReadonlySet<string> = new Set([
  "containerd.services.events.v1.Events/Subscribe",
  "grpc.health.v1.Health/Watch",
  "runtime.v1.RuntimeService/GetContainerEvents",
]);
const NAMESPACE = "sample";
const codec = jsonCodec(anyTypes);

const METHODS = API_SERVICES.flatMap((service) =>
  service.methods.map((method) => [`${service.typeName}/${method.name}`, method] as const),
);

let json: Daemon;
let grpc: Daemon;
let connection: Connection;

beforeAll(async () => {
  json = await startDaemon("bunkerd");
  grpc = await startDaemon("bunkerd");
  connection = connectGrpc(grpc.socket);
});

afterAll(async () => {
  connection.close();
  await Promise.all([json.stop(), grpc.stop()]);
});

describe.each(METHODS)("%s", (name, method) => {
  test.each([
    ["empty", {}],
    ["full", sampleRequest(method.input)],
  ])("%s request: JSON answers what gRPC answers", async (_name, request) => {
    const byJson = await callJson(name, method, request);
    const byGrpc = await callGrpc(name, method, request);
    expect(plain(byJson, json)).toEqual(plain(byGrpc, grpc));
    expect(byJson.error?.message ?? "").not.toMatch(/^(?:unknown method|method \w+ not implemented)/);
  });
});

async function callJson(name: string, method: DescMethod, request: unknown): Promise<Outcome> {
  const leave = new AbortController();
  const unary = method.methodKind === "unary";
  const text = JSON.stringify(request);
  const answer = await fetch(`http://localhost/${name}`, {
    method: "POST",
    unix: json.socket,
    body: unary ? text : envelope(text),
    headers: {
      "content-type": unary ? "application/json" : "application/connect+json",
      "containerd-namespace": NAMESPACE,
    },
    signal: leave.signal,
  });
  const type = answer.headers.get("content-type");
  if (unary) {
    expect(type).toBe("application/json");
    const body = await answer.json();
    return answer.status === 200 ? { messages: [body] } : { messages: [], error: errorOf(body) };
  }
  expect(answer.status).toBe(200);
  expect(type).toBe("application/connect+json");
  if (ENDLESS.has(name)) {
    leave.abort();
    return { messages: [] };
  }
  return streamed(new Uint8Array(await answer.arrayBuffer()));
}

async function callGrpc(name: string, method: DescMethod, request: unknown): Promise<Outcome> {
  const leave = new AbortController();
  const client = connection.client(method.parent) as unknown as Record<
    string,
    (...given: unknown[]) => unknown
  >;
  const message = codec.fromText(method.input, JSON.stringify(request));
  const options = { ...inNamespace(NAMESPACE), signal: leave.signal };
  const messages: unknown[] = [];
  try {
    if (ENDLESS.has(name)) {
      const started = Promise.withResolvers<void>();
      const stream = client[method.localName]?.(message, { ...options, onHeader: () => started.resolve() });
      const next = (stream as AsyncIterable<Message>)[Symbol.asyncIterator]().next();
      await Promise.race([started.promise, next]);
      leave.abort();
      await next.catch(() => undefined);
      return { messages };
    }
    const streams = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
    const answer = client[method.localName]?.(streams ? once(message) : message, options);
    const all = method.methodKind === "unary" || method.methodKind === "client_streaming";
    const answers = all ? [await (answer as Promise<Message>)] : (answer as AsyncIterable<Message>);
    for await (const one of answers) messages.push(JSON.parse(codec.toText(method.output, one)));
    return { messages };
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error, Code.Unknown);
    return { messages, error: { code: codeToString(code), message: rawMessage } };
  }
}

async function* once(message: Message): AsyncGenerator<Message> {
  yield message;
}

function errorOf(body: unknown): { code: string; message: string } {
  const { code = "none", message = "" } = body as { code?: string; message?: string };
  return { code, message };
}

function envelope(text: string): Uint8Array<ArrayBuffer> {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(text), 1);
  return new Uint8Array(Buffer.concat([head, Buffer.from(text)]));
}

/** The messages of a body of envelopes, and the error of its end. */
function streamed(body: Uint8Array): Outcome {
  const bytes = Buffer.from(body);
  const messages: unknown[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    const value: unknown = JSON.parse(bytes.toString("utf8", at + 5, end));
    if (bytes.readUInt8(at) === 2) {
      expect(end, "the end of the stream is its last envelope").toBe(bytes.length);
      const { error } = value as { error?: unknown };
      return error === undefined ? { messages } : { messages, error: errorOf(error) };
    }
    messages.push(value);
    at = end;
  }
  throw new Error("the stream has no end");
}

/** Folders, times, ids and process numbers are each daemon's own. */
function plain(outcome: Outcome, daemon: Daemon): string {
  return JSON.stringify(outcome, null, 1)
    .replaceAll(daemon.folder, "<folder>")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, "<time>")
    .replaceAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<uuid>")
    .replaceAll(/\b[0-9a-f]{64}\b/g, "<id>")
    .replaceAll(/"timestamp": "\d+"/g, '"timestamp": <time>')
    .replaceAll(/"pid": "\d+"/g, '"pid": <pid>')
    .replaceAll(/"id": "\d+-[\w-]+"/g, '"id": <generated>');
}
