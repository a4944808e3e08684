/** Hostile and broken requests: the code and the message are containerd's, and the daemon goes on. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Code } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { curl, curlRaw } from "../support/commands.ts";
import { type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { exchangeBytes, grpcFrame, grpcStatusOf, type RawRequest, requestRaw } from "../support/raw-http2.ts";
import { containerOf } from "../support/workload.ts";

const kinds = daemonKinds("containerd-2.1", "bunkerd");
const daemons: Daemon[] = [];

beforeAll(async () => {
  for (const kind of kinds) daemons.push(await startDaemon(kind));
});

/** Whatever came before, the next caller is served. */
afterEach(async () => {
  for (const daemon of daemons) {
    await using connection = connectGrpc(daemon.socket);
    expect((await connection.client(Version).version({})).version).not.toBe("");
  }
});

afterAll(async () => {
  for (const daemon of daemons) await daemon.stop();
});

const LIST = "/containerd.services.containers.v1.Containers/List";
const GET = "/containerd.services.containers.v1.Containers/Get";
const none = new Uint8Array(0);
const inDefault = { "containerd-namespace": "default" };
const gzip = { ...inDefault, "grpc-encoding": "gzip" };

/** What gRPC requests are like, and the status that containerd answers. Where its words name Go's insides, only the status is compared. */
interface BadRequest extends RawRequest {
  readonly status: string | undefined;
  readonly ownWords?: true;
  /** Where bunkerd departs: Internal for a cut message (grpc-go: Unknown); an answer that is there at once is no timeout. */
  readonly ours?: RegExp;
}

const REQUESTS: Readonly<Record<string, BadRequest>> = {
  "nothing wrong": { path: LIST, headers: inDefault, body: grpcFrame(none), status: "0" },
  "a frame cut short": {
    path: LIST,
    headers: inDefault,
    body: grpcFrame(new Uint8Array(10), 0, 100),
    status: "2",
    ours: /^13$/,
    ownWords: true,
  },
  "a frame head cut short": {
    path: LIST,
    headers: inDefault,
    body: new Uint8Array(3),
    status: "2",
    ours: /^13$/,
    ownWords: true,
  },
  "no message": { path: LIST, headers: inDefault, status: "2", ours: /^13$/, ownWords: true },
  "a frame of 4 GiB": { path: LIST, headers: inDefault, body: grpcFrame(none, 0, 2 ** 32 - 1), status: "8" },
  "a frame of 16 MiB and a byte": {
    path: LIST,
    headers: inDefault,
    body: grpcFrame(none, 0, 2 ** 24 + 1),
    status: "8",
  },
  "bytes that are no protobuf": {
    path: LIST,
    headers: inDefault,
    body: grpcFrame(Uint8Array.of(255, 255, 255)),
    status: "13",
    ownWords: true,
  },
  "a string that is no UTF-8": {
    path: GET,
    headers: inDefault,
    body: grpcFrame(Uint8Array.of(10, 2, 255, 254)),
    status: "13",
    ownWords: true,
  },
  "an unknown frame flag": { path: LIST, headers: inDefault, body: grpcFrame(none, 7), status: "13" },
  "compressed without an encoding": {
    path: LIST,
    headers: inDefault,
    body: grpcFrame(new Uint8Array(3), 1),
    status: "13",
  },
  "an unknown compression": {
    path: LIST,
    headers: { ...inDefault, "grpc-encoding": "snappy" },
    body: grpcFrame(new Uint8Array(3), 1),
    status: "12",
  },
  "gzip that is none": {
    path: LIST,
    headers: gzip,
    body: grpcFrame(new Uint8Array(9), 1),
    status: "13",
    ownWords: true,
  },
  "gzip that unpacks to 64 MiB": {
    path: LIST,
    headers: gzip,
    body: grpcFrame(gzipSync(Buffer.alloc(64 << 20)), 1),
    status: "8",
  },
  "another content-type": {
    path: LIST,
    headers: { ...inDefault, "content-type": "text/plain" },
    body: grpcFrame(none),
    status: undefined,
    ownWords: true,
  },
  "an unknown service": {
    path: "/no.such.Service/X",
    headers: inDefault,
    body: grpcFrame(none),
    status: "12",
  },
  "an unknown method": {
    path: "/containerd.services.containers.v1.Containers/X",
    headers: inDefault,
    body: grpcFrame(none),
    status: "12",
  },
  "a path without a method": { path: "/x", headers: inDefault, body: grpcFrame(none), status: "12" },
  "a timeout that is none": {
    path: LIST,
    headers: { ...inDefault, "grpc-timeout": "abc" },
    body: grpcFrame(none),
    status: "13",
  },
  "a timeout that has passed": {
    path: LIST,
    headers: { ...inDefault, "grpc-timeout": "1n" },
    body: grpcFrame(none),
    status: "4",
    ours: /^[04]$/,
    ownWords: true,
  },
};

describe("a gRPC request with", () => {
  test.each(Object.entries(REQUESTS))("%s", async (_name, request) => {
    const answers = [];
    for (const daemon of daemons) answers.push(await requestRaw(daemon.socket, request));
    const [reference, ...others] = answers.map((answer) => ({
      http: answer.status,
      ...grpcStatusOf(answer),
    }));
    if (request.status !== undefined) expect(reference?.status).toBe(request.status);
    for (const other of others) {
      expect(other.http).toBe(reference?.http);
      if (request.status !== undefined)
        expect(other.status).toMatch(request.ours ?? new RegExp(`^${request.status}$`));
      if (request.ownWords !== true) expect(other.message ?? "").toBe(reference?.message ?? "");
    }
  });

  test("a stream that is left half open: answered after its message, waited for before it", async () => {
    for (const daemon of daemons) {
      const open = { path: LIST, headers: inDefault, halfClosed: true };
      expect(await requestRaw(daemon.socket, open)).toMatchObject({ status: undefined });
      const answered = await requestRaw(daemon.socket, { ...open, body: grpcFrame(none) });
      expect(grpcStatusOf(answered).status ?? answered.broke).toMatch(/^(0|still open)$/);
    }
  });
});

describe("bytes that are no HTTP/2", () => {
  const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  test.each([
    ["garbage before the preface", `\0\0garbage\n\n${preface}`],
    ["a preface cut short and closed by other words", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"],
    ["frames that are noise", `${preface}${"\u00ff".repeat(60)}`],
    [
      "a frame longer than SETTINGS allow",
      `${preface}\u00ff\u00ff\u00ff\u0000\u0000\u0000\u0000\u0000\u0001`,
    ],
    ["noise in place of HTTP/1.1", `${"\u0001\u0002".repeat(4000)}\r\n\r\n`],
    ["a request line of 1 MiB", `GET /${"x".repeat(1 << 20)} HTTP/1.1\r\nhost: x\r\n\r\n`],
    ["headers of 1 MiB", `GET / HTTP/1.1\r\nhost: x\r\nlong: ${"x".repeat(1 << 20)}\r\n\r\n`],
    [
      "a chunk size that is none",
      `POST ${LIST} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n`,
    ],
  ])("%s: refused, and the connection ends", async (_name, text) => {
    for (const daemon of daemons.filter(({ kind }) => kind === "bunkerd")) {
      const { received, closed } = await exchangeBytes(daemon.socket, Buffer.from(text, "latin1"), 5_000);
      expect(closed, received.toString("latin1").slice(0, 200)).toBe(true);
      expect(received.toString("latin1")).not.toContain("HTTP/1.1 200");
    }
  });

  test("HTTP/1.0 is answered", async () => {
    for (const daemon of daemons.filter(({ kind }) => kind === "bunkerd")) {
      const answer = await curl(
        daemon,
        LIST,
        "--http1.0",
        ...["-H", "content-type: application/json", "-H", "containerd-namespace: default", "-d", "{}"],
      );
      expect([200, 505]).toContain(answer.status);
    }
  });
});

describe("Connect requests with", () => {
  const post = ["-H", "containerd-namespace: default", "-d"];
  const json = ["-H", "content-type: application/json"];
  test.each([
    ["another content-type", LIST, ["-H", "content-type: text/plain", ...post, "{}"], 415],
    ["no JSON", LIST, [...json, ...post, "{"], 400],
    ["an unknown field", LIST, [...json, ...post, '{"nonsense": 1}'], 400],
    ["a wrong type", LIST, [...json, ...post, '{"filters": 1}'], 400],
    ["an unknown method", `${LIST}s`, [...json, ...post, "{}"], 501],
    ["PUT", LIST, [...json, ...post, "{}", "-X", "PUT"], 405],
    ["bad percent-encoding in a GET", `${GET}?connect=v1&encoding=json&message=%zz`, [], 400],
    [
      "a GET of a method that changes things",
      `/containerd.services.containers.v1.Containers/Delete?encoding=json&message=%7B%7D`,
      [],
      405,
    ],
    ["an unknown compression", LIST, [...json, "-H", "content-encoding: snappy", ...post, "{}"], 501],
    ["a deadline that is none", LIST, [...json, "-H", "connect-timeout-ms: x", ...post, "{}"], 400],
  ] as const)("%s are refused in HTTP's words", async (_name, path, args, status) => {
    for (const daemon of daemons.filter(({ kind }) => kind === "bunkerd")) {
      const answer = await curl(daemon, path, ...args);
      expect(answer.status, answer.body).toBe(status);
      expect(answer.headers.get("content-length") ?? answer.headers.get("transfer-encoding")).not.toBeNull();
      expect((await curlRaw(daemon, path, ...args)).code).toBe(0);
    }
  });

  test("17 MiB are refused as too large", async () => {
    for (const daemon of daemons.filter(({ kind }) => kind === "bunkerd")) {
      const file = join(daemon.folder, "large.json");
      writeFileSync(file, JSON.stringify({ filters: ["x".repeat(17 << 20)] }));
      const answer = await curl(daemon, LIST, ...json, ...post, `@${file}`);
      expect(JSON.parse(answer.body)).toMatchObject({ code: "resource_exhausted" });
    }
  });
});

describe("ids", () => {
  test.each([
    ["with a slash", "a/b"],
    ["that climb", ".."],
    ["that climb far", "../../../etc/passwd"],
    ["with NUL", "a\u0000b"],
    ["with a line break", "a\nb"],
    ["of 2 MB", "x".repeat(2_000_000)],
  ])("%s are invalid arguments, and nothing is stored", async (_name, id) => {
    for (const daemon of daemons.filter(({ kind }) => kind === "bunkerd" || id.length < 1000)) {
      await using connection = connectGrpc(daemon.socket);
      const containers = connection.client(Containers);
      const refused = await errorOf(containers.create({ container: containerOf(id) }, inNamespace("ids")));
      expect(refused.code).toBe(Code.InvalidArgument);
      expect(refused.message).toMatch(/container\.ID|identifier/);
      expect(refused.message.length).toBeLessThan(10_000);
      await using other = connectGrpc(daemon.socket);
      const listed = await other.client(Containers).list({}, inNamespace("ids"));
      expect(listed.containers).toEqual([]);
    }
  });

  test("a namespace header with what may not be in it", async () => {
    for (const daemon of daemons) {
      await using connection = connectGrpc(daemon.socket);
      for (const namespace of ["a/b", "..", "x".repeat(77), "-"]) {
        const refused = await errorOf(connection.client(Containers).list({}, inNamespace(namespace)));
        expect(refused.code).toBe(Code.InvalidArgument);
        expect(refused.message).toMatch(/^namespace validation: /);
      }
    }
  });
});
