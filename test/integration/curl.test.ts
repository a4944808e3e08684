/** Every implemented RPC by plain curl: Connect JSON over HTTP/1.1 and over HTTP/2, GET, errors, streams; and `buf curl` by reflection. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { callJson, ctr, curl, curlRaw } from "../support/commands.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { output, start } from "../support/processes.ts";

const API = "containerd.services";
const CONTAINERS = `${API}.containers.v1.Containers`;
const NAMESPACES = `${API}.namespaces.v1.Namespaces`;
const LEASES = `${API}.leases.v1.Leases`;
const STORE = `${API}.sandbox.v1.Store`;
const EVENTS = `${API}.events.v1.Events`;
const INTROSPECTION = `${API}.introspection.v1.Introspection`;
const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const MAX_UINT64 = "18446744073709551615";

const spec = (filler: string): object => ({
  "@type": SPEC_TYPE,
  value: { ociVersion: "1.2.0", hostname: filler },
});
const runtime = { name: "io.containerd.runc.v2" };

/** Method, request, and what the answer must hold; in this order, in a namespace of their own. */
const CALLS: readonly (readonly [string, object, object])[] = [
  [`${API}.version.v1.Version/Version`, {}, { version: expect.any(String) }],
  [
    `${NAMESPACES}/Create`,
    { namespace: { name: "made", labels: { a: "b" } } },
    { namespace: { name: "made" } },
  ],
  [`${NAMESPACES}/Get`, { name: "made" }, { namespace: { name: "made", labels: { a: "b" } } }],
  [`${NAMESPACES}/List`, {}, { namespaces: expect.arrayContaining([{ name: "made", labels: { a: "b" } }]) }],
  [`${NAMESPACES}/Update`, { namespace: { name: "made", labels: { c: "d" } }, updateMask: "labels.c" }, {}],
  [`${NAMESPACES}/Delete`, { name: "made" }, {}],
  [
    `${CONTAINERS}/Create`,
    { container: { id: "web", runtime, spec: spec("one") } },
    { container: { id: "web", runtime } },
  ],
  [
    `${CONTAINERS}/Get`,
    { id: "web" },
    { container: { id: "web", spec: spec("one"), createdAt: expect.stringMatching(/Z$/) } },
  ],
  [`${CONTAINERS}/List`, { filters: ["id==web"] }, { containers: [{ id: "web" }] }],
  [
    `${CONTAINERS}/Update`,
    { container: { id: "web", labels: { "a.b/c": "d" } }, updateMask: "labels" },
    { container: { id: "web", labels: { "a.b/c": "d" } } },
  ],
  [`${CONTAINERS}/Delete`, { id: "web" }, {}],
  [`${CONTAINERS}/List`, {}, {}],
  [`${LEASES}/Create`, { id: "l", labels: { x: "y" } }, { lease: { id: "l", labels: { x: "y" } } }],
  [`${LEASES}/AddResource`, { id: "l", resource: { id: "snap", type: "snapshots/native" } }, {}],
  [`${LEASES}/ListResources`, { id: "l" }, { resources: [{ id: "snap", type: "snapshots/native" }] }],
  [`${LEASES}/DeleteResource`, { id: "l", resource: { id: "snap", type: "snapshots/native" } }, {}],
  [`${LEASES}/List`, {}, { leases: [{ id: "l" }] }],
  [`${LEASES}/Delete`, { id: "l", sync: true }, {}],
  [
    `${STORE}/Create`,
    { sandbox: { sandboxId: "pod", runtime, spec: spec("s") } },
    { sandbox: { sandboxId: "pod" } },
  ],
  [`${STORE}/Get`, { sandboxId: "pod" }, { sandbox: { sandboxId: "pod", spec: spec("s") } }],
  [
    `${STORE}/Update`,
    { sandbox: { sandboxId: "pod", labels: { a: "b" } }, fields: ["labels"] },
    { sandbox: { labels: { a: "b" } } },
  ],
  [`${STORE}/List`, {}, { list: [{ sandboxId: "pod" }] }],
  [`${STORE}/Delete`, { sandboxId: "pod" }, {}],
  [`${EVENTS}/Publish`, { topic: "/a/b", event: { "@type": "x.y/z", value: { n: 1 } } }, {}],
  [
    `${EVENTS}/Forward`,
    {
      envelope: {
        topic: "/a",
        namespace: "x",
        timestamp: "2026-01-01T00:00:00Z",
        event: { "@type": "x.y/z", value: {} },
      },
    },
    {},
  ],
  [
    `${INTROSPECTION}/Server`,
    {},
    { uuid: expect.stringMatching(/^[0-9a-f-]{36}$/), pid: expect.stringMatching(/^\d+$/) },
  ],
  [
    `${INTROSPECTION}/Plugins`,
    { filters: ["id==containers"] },
    { plugins: expect.arrayContaining([expect.objectContaining({ id: "containers" })]) },
  ],
  ["grpc.health.v1.Health/Check", {}, { status: "SERVING" }],
];

let daemon: Daemon;

beforeAll(async () => {
  daemon = await startDaemon("bunkerd");
});

afterAll(() => daemon.stop());

describe.each([
  ["HTTP/1.1", false],
  ["HTTP/2 with prior knowledge", true],
] as const)("over %s", (name, http2) => {
  const namespace = http2 ? "second" : "first";

  test.each(CALLS.map((call, index) => [`${index} ${call[0]}`, call] as const))(
    "%s",
    async (_name, [method, request, shows]) => {
      const answer = await callJson(daemon, method, request, { namespace, http2 });
      expect(answer.status, answer.body).toBe(200);
      expect(answer.headers.get("content-type")).toBe("application/json");
      expect(JSON.parse(answer.body)).toMatchObject(shows);
    },
  );

  test("an error is JSON with the code and containerd's words", async () => {
    const missing = await callJson(daemon, `${CONTAINERS}/Get`, { id: "none" }, { namespace, http2 });
    expect(missing.status).toBe(404);
    expect(JSON.parse(missing.body)).toMatchObject({
      code: "not_found",
      message: `container "none" in namespace "${namespace}": not found`,
    });
    const nameless = await callJson(daemon, `${CONTAINERS}/List`, {}, { http2 });
    expect(nameless.status).toBe(400);
    expect(JSON.parse(nameless.body)).toMatchObject({
      code: "failed_precondition",
      message: "namespace is required: failed precondition",
    });
    const unbuilt = await callJson(daemon, `${API}.nothing.v1.Nothing/List`, {}, { namespace, http2 });
    expect(unbuilt.status).toBe(404);
    expect(JSON.parse(unbuilt.body)).toMatchObject({ code: "unimplemented" });
  });

  test("Get by HTTP GET, and not of what changes things", async () => {
    await callJson(
      daemon,
      `${CONTAINERS}/Create`,
      { container: { id: "got", runtime } },
      { namespace, http2 },
    );
    const query = `connect=v1&encoding=json&message=${encodeURIComponent('{"id":"got"}')}`;
    const flags = [
      http2 ? "--http2-prior-knowledge" : "--http1.1",
      "-H",
      `containerd-namespace: ${namespace}`,
    ];
    const answer = await curl(daemon, `/${CONTAINERS}/Get?${query}`, ...flags);
    expect(JSON.parse(answer.body)).toMatchObject({ container: { id: "got" } });
    expect((await curl(daemon, `/${CONTAINERS}/Delete?${query}`, ...flags)).status).toBe(405);
    const still = await callJson(daemon, `${CONTAINERS}/Get`, { id: "got" }, { namespace, http2 });
    expect(still.status).toBe(200);
  });

  test("ListStream as Connect's enveloped JSON", async () => {
    const options = { namespace: `${namespace}-stream`, http2 };
    for (const id of ["a", "b", "c"]) {
      await callJson(daemon, `${CONTAINERS}/Create`, { container: { id, runtime } }, options);
    }
    const file = join(daemon.folder, `answer-${name.length}`);
    writeFileSync(join(daemon.folder, "request"), envelope("{}"));
    const flags = [
      ...(http2 ? ["--http2-prior-knowledge"] : ["--http1.1"]),
      ...["-H", "content-type: application/connect+json", "-H", `containerd-namespace: ${options.namespace}`],
      ...["--data-binary", `@${join(daemon.folder, "request")}`, "--no-include", "--output", file],
    ];
    expect((await curlRaw(daemon, `/${CONTAINERS}/ListStream`, ...flags)).code).toBe(0);
    const messages = envelopesOf(readFileSync(file));
    expect(messages.map(({ flag }) => flag)).toEqual([0, 0, 0, 2]);
    expect(messages.slice(0, 3)).toMatchObject(
      ["a", "b", "c"].map((id) => ({ message: { container: { id } } })),
    );
    expect(messages[3]?.message).toEqual({});
  });
});

test("a container that ctr made shows its OCI spec as readable JSON, the largest uint64 in it", async () => {
  const rlimits = `[{"type":"RLIMIT_NOFILE","hard":${MAX_UINT64},"soft":${MAX_UINT64}}]`;
  const text = `{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","rlimits":${rlimits}}}`;
  writeFileSync(join(daemon.folder, "spec.json"), text);
  for (const version of ["1.6", "2.1"] as const) {
    const id = `by-ctr-${version.replace(".", "-")}`;
    expect(await ctr(version, daemon, "c", "create", "--config", "spec.json", id)).toMatchObject({ code: 0 });
    const answer = await callJson(daemon, `${CONTAINERS}/Get`, { id }, { namespace: "default" });
    expect(answer.body).toContain(`"rlimits":${rlimits}`);
    expect(JSON.parse(answer.body)).toMatchObject({
      container: {
        id,
        spec: { "@type": SPEC_TYPE, value: { ociVersion: "1.2.0", process: { args: ["sh"] } } },
      },
    });
    // Back through JSON and out by ctr: not a digit may change.
    const stored = answer.body.replace(`"id":"${id}"`, `"id":"${id}-copy"`);
    writeFileSync(join(daemon.folder, "copy.json"), stored);
    const headers = ["-H", "content-type: application/json", "-H", "containerd-namespace: default"];
    const copied = await curl(
      daemon,
      `/${CONTAINERS}/Create`,
      ...headers,
      "-d",
      `@${join(daemon.folder, "copy.json")}`,
    );
    expect(copied.status, copied.body).toBe(200);
    const [original, copy] = await Promise.all(
      [id, `${id}-copy`].map((each) => ctr(version, daemon, "c", "info", "--spec", each)),
    );
    expect(copy?.stdout).toBe(original?.stdout ?? "");
    expect(copy?.stdout).toContain(`"hard": ${MAX_UINT64}`);
  }
});

test("an event stream shows its headers before there is an event", async () => {
  const body = envelope("{}").toString("latin1");
  const head = `POST /${EVENTS}/Subscribe HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+json\r\n`;
  const request = Buffer.from(`${head}content-length: ${body.length}\r\n\r\n${body}`, "latin1");
  expect(await firstBytes(daemon.socket, request)).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
});

test("an event stream shows an event as JSON as it happens", async () => {
  writeFileSync(join(daemon.folder, "subscribe"), envelope('{"filters":["namespace==watched"]}'));
  const watching = start(
    [
      ...["curl", "-sS", "--no-buffer", "--unix-socket", daemon.socket],
      ...["-H", "content-type: application/connect+json"],
      ...["--data-binary", `@${join(daemon.folder, "subscribe")}`, `http://localhost/${EVENTS}/Subscribe`],
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  try {
    let seen = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of watching.stdout) {
        seen += decoder.decode(chunk, { stream: true });
        if (seen.includes('"ping-')) return;
      }
    })();
    // curl does not say when it is connected: create until the first is seen.
    for (let n = 0; !seen.includes('"ping-'); n++) {
      const container = { id: `ping-${n}`, runtime };
      await callJson(daemon, `${CONTAINERS}/Create`, { container }, { namespace: "watched" });
      await Promise.race([reading, Bun.sleep(20)]);
    }
    expect(seen).toContain('"topic":"/containers/create"');
    expect(seen).toContain('"@type":"containerd.events.ContainerCreate"');
  } finally {
    watching.kill("SIGKILL");
    await watching.exited;
  }
});

test("buf curl needs no proto files", async () => {
  await callJson(daemon, `${CONTAINERS}/Create`, { container: { id: "buf", runtime } }, { namespace: "buf" });
  for (const protocol of ["grpc", "connect", "grpcweb"]) {
    const http2 = protocol === "grpcweb" ? [] : ["--http2-prior-knowledge"];
    const printed = await output([
      ...[join(import.meta.dir, "../../node_modules/.bin/buf"), "curl", "--protocol", protocol, ...http2],
      ...["--unix-socket", daemon.socket, "--header", "containerd-namespace: buf", "--data", '{"id":"buf"}'],
      `http://localhost/${CONTAINERS}/Get`,
    ]);
    expect(JSON.parse(printed)).toMatchObject({ container: { id: "buf" } });
  }
  const listed = await output([
    ...[
      join(import.meta.dir, "../../node_modules/.bin/buf"),
      "curl",
      "--http2-prior-knowledge",
      "--list-services",
    ],
    ...["--unix-socket", daemon.socket, "http://localhost"],
  ]);
  expect(listed.split("\n")).toEqual(
    expect.arrayContaining([CONTAINERS, NAMESPACES, LEASES, "grpc.health.v1.Health"]),
  );
});

function envelope(text: string): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(text), 1);
  return Buffer.concat([head, Buffer.from(text)]);
}

function envelopesOf(bytes: Buffer): { flag: number; message: unknown }[] {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1);
    found.push({
      flag: bytes.readUInt8(at),
      message: JSON.parse(bytes.toString("utf8", at + 5, at + 5 + length)),
    });
    at += 5 + length;
  }
  return found;
}

/** The first chunk that comes back. */
function firstBytes(socket: string, bytes: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const connection = connect(socket);
    connection.once("data", (chunk: Buffer) => {
      connection.destroy();
      resolve(chunk.toString("latin1"));
    });
    connection.once("error", reject);
    connection.write(bytes);
  });
}
