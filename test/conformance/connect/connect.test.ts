/** Connect, gRPC-Web and gRPC's JSON through the listener, by curl and by Connect's own clients, on HTTP/1.1 and HTTP/2. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Code, ConnectError, createClient, type HandlerContext, type Transport } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { fail } from "../../../src/model/errors.ts";
import { Listener } from "../../../src/transport/listener.ts";
import { bind } from "../../../src/transport/registry.ts";

const folder = mkdtempSync(join(tmpdir(), "bunkerd-conformance-"));
const path = join(folder, "s.sock");
const SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const spec = { typeUrl: SPEC, value: new TextEncoder().encode('{ "max":18446744073709551615 }') };
/** Of the Subscribe that came last. */
let subscribed = Promise.withResolvers<HandlerContext>();

const bindings = [
  bind(Containers, {
    get(request, context) {
      const namespace = context.requestHeader.get("containerd-namespace");
      if (namespace === null) throw fail("FailedPrecondition", "namespace is required");
      if (request.id === "none") throw fail("NotFound", `container "none" in namespace "${namespace}"`);
      if (request.id === "slow") return new Promise(() => undefined);
      return { container: { id: request.id, image: namespace, spec } };
    },
    create: (request) => ({ container: request.container ?? {} }),
    async *listStream(request) {
      for (let at = 0; at < 1000; at++) yield { container: { id: `c${at}`, image: "x".repeat(10_000) } };
      if (request.filters.length > 0) throw fail("DataLoss", "page 7");
    },
  }),
  bind(Content, {
    async *write(requests) {
      let offset = 0n;
      for await (const request of requests) {
        offset += BigInt(request.data.length);
        yield { offset };
      }
    },
  }),
  bind(Events, {
    async *subscribe(_request, context) {
      subscribed.resolve(context);
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve, { once: true }));
      yield* [];
    },
  }),
];

const listener = new Listener({ path }, { bindings, logger: silentLogger });
beforeAll(() => listener.start());
afterAll(async () => {
  await listener.close(0);
  rmSync(folder, { recursive: true });
});

const CONTAINERS = "containerd.services.containers.v1.Containers";
const HTTP = [
  ["HTTP/1.1", "--http1.1"],
  ["HTTP/2", "--http2-prior-knowledge"],
] as const;

function curl(target: string, ...args: readonly string[]) {
  const command = [
    "curl",
    "-sS",
    "-N",
    "--max-time",
    "60",
    "--unix-socket",
    path,
    ...args,
    `http://localhost/${target}`,
  ];
  return Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

async function textOf(target: string, ...args: readonly string[]): Promise<string> {
  const child = curl(target, "-w", " %{http_code}", ...args);
  const [text, complaint] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return complaint + text;
}

const JSON_ARGS = ["-H", "content-type: application/json", "-H", "containerd-namespace: n"] as const;

describe.each([...HTTP])("curl, %s", (_name, flag) => {
  test("POST and GET answer JSON", async () => {
    const answer = `{"container":{"id":"web","image":"n","spec":{"@type":"${SPEC}","value":{ "max":18446744073709551615 }}}} 200`;
    expect(await textOf(`${CONTAINERS}/Get`, flag, ...JSON_ARGS, "-d", '{"id":"web"}')).toBe(answer);
    const query = `encoding=json&message=${encodeURIComponent('{"id":"web"}')}`;
    expect(await textOf(`${CONTAINERS}/Get?${query}`, flag, "-H", "containerd-namespace: n")).toBe(answer);
  });

  test("gzip, both ways", async () => {
    const body = join(folder, `body${flag}`);
    const container = { id: "z", image: "z".repeat(100_000) };
    await Bun.write(body, gzipSync(JSON.stringify({ container })));
    const encoded = ["-H", "content-encoding: gzip", "--compressed", "--data-binary", `@${body}`];
    const text = await textOf(
      `${CONTAINERS}/Create`,
      flag,
      ...JSON_ARGS,
      ...encoded,
      "-D",
      `${body}.headers`,
    );
    expect(text).toBe(`${JSON.stringify({ container })} 200`);
    expect((await Bun.file(`${body}.headers`).text()).toLowerCase()).toContain("content-encoding: gzip");
  });

  test("errors", async () => {
    expect(await textOf(`${CONTAINERS}/Get`, flag, ...JSON_ARGS, "-d", '{"id":"none"}')).toBe(
      '{"code":"not_found","message":"container \\"none\\" in namespace \\"n\\": not found"} 404',
    );
    expect(await textOf(`${CONTAINERS}/Get`, flag, ...JSON_ARGS.slice(0, 2), "-d", "{}")).toBe(
      '{"code":"failed_precondition","message":"namespace is required: failed precondition"} 400',
    );
    expect(await textOf("v2/_catalog", flag)).toEndWith(" 404");
    expect(await textOf(`${CONTAINERS}/Get`, flag, "-d", "{}")).toEndWith(" 415");
    const slow = ["-H", "connect-timeout-ms: 100", "-d", '{"id":"slow"}'];
    expect(await textOf(`${CONTAINERS}/Get`, flag, ...JSON_ARGS, ...slow)).toBe(
      '{"code":"deadline_exceeded","message":"context deadline exceeded"} 504',
    );
  });

  test("a body over the limit", async () => {
    const body = join(folder, `big${flag}`);
    await Bun.write(body, `{"id":"${"x".repeat(17 << 20)}"}`);
    const text = await textOf(`${CONTAINERS}/Get`, flag, ...JSON_ARGS, "--data-binary", `@${body}`);
    expect(text).toContain('"code":"resource_exhausted"');
    expect(text).toEndWith(" 429");
  });

  test("an idle stream shows its headers; the call ends with the client", async () => {
    subscribed = Promise.withResolvers();
    const body = join(folder, `envelope${flag}`);
    await Bun.write(body, Uint8Array.of(0, 0, 0, 0, 2, 0x7b, 0x7d));
    const type = ["-H", "content-type: application/connect+json"];
    const child = curl(
      "containerd.services.events.v1.Events/Subscribe",
      flag,
      "-v",
      ...type,
      "--data-binary",
      `@${body}`,
    );
    const { signal } = await subscribed.promise;
    let shown = "";
    for await (const chunk of child.stderr) {
      shown += new TextDecoder().decode(chunk);
      if (/^< HTTP\/[12.]+ 200/m.test(shown)) break;
    }
    expect(signal.aborted).toBe(false);
    const ended = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    child.kill();
    await ended;
  });
});

const options = (httpVersion: "1.1" | "2", useBinaryFormat: boolean) => ({
  baseUrl: "http://localhost",
  httpVersion,
  useBinaryFormat,
  nodeOptions: httpVersion === "2" ? { createConnection: () => connectSocket() } : { socketPath: path },
  acceptCompression: [compressionGzip],
  sendCompression: compressionGzip,
});

function connectSocket() {
  return connect(path);
}

const transports: readonly (readonly [string, Transport])[] = (["1.1", "2"] as const).flatMap((version) => [
  [`Connect binary, HTTP/${version}`, createConnectTransport(options(version, true))],
  [`Connect JSON, HTTP/${version}`, createConnectTransport(options(version, false))],
  [`Connect GET, HTTP/${version}`, createConnectTransport({ ...options(version, true), useHttpGet: true })],
  [`gRPC-Web binary, HTTP/${version}`, createGrpcWebTransport(options(version, true))],
  [`gRPC-Web JSON, HTTP/${version}`, createGrpcWebTransport(options(version, false))],
  ...(version === "2" ? [["gRPC JSON, HTTP/2", createGrpcTransport(options(version, false))] as const] : []),
]);

describe.each(transports)("%s", (name, transport) => {
  const headers = { "containerd-namespace": "n" };
  const containers = createClient(Containers, transport);

  test("a unary call and its error", async () => {
    if (!name.includes("JSON")) {
      const { container } = await containers.get({ id: "web" }, { headers });
      expect(container).toMatchObject({ id: "web", image: "n", spec });
    }
    const error = await containers.get({ id: "none" }, { headers }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({
      code: Code.NotFound,
      rawMessage: 'container "none" in namespace "n": not found',
    });
    const slow = await containers
      .get({ id: "slow" }, { headers, timeoutMs: 100 })
      .catch((thrown: unknown) => thrown);
    expect(slow).toMatchObject({ code: Code.DeadlineExceeded });
  });

  test("10 MB in a thousand messages, then an error", async () => {
    const ids: string[] = [];
    const read = async (): Promise<void> => {
      for await (const { container } of containers.listStream({ filters: ["fail"] }))
        ids.push(container?.id ?? "");
    };
    const error = await read().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: Code.DataLoss, rawMessage: "page 7: data loss" });
    expect(ids.length).toBe(1000);
  });

  test("bytes both ways", async () => {
    const requests = async function* () {
      for (let at = 0; at < 20; at++) yield { data: new Uint8Array(100_000) };
    };
    const offsets: bigint[] = [];
    const client = createClient(Content, transport);
    for await (const { offset } of client.write(requests(), { headers })) offsets.push(offset);
    expect(offsets.length).toBe(20);
    expect(offsets.at(-1)).toBe(2_000_000n);
  });

  test("a subscriber that leaves", async () => {
    subscribed = Promise.withResolvers();
    const client = new AbortController();
    const events = createClient(Events, transport).subscribe({}, { signal: client.signal, headers });
    const next = events[Symbol.asyncIterator]()
      .next()
      .catch((thrown: unknown) => thrown);
    const { signal } = await subscribed.promise;
    const ended = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    client.abort();
    await ended;
    expect(await next).toMatchObject({ code: Code.Canceled });
  });
});
