/** The streaming server on real sockets, with clients of each kind; what it serves is an echo. */
import { afterEach, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { networkInterfaces } from "node:os";
import { until } from "../../../test/support/containers.ts";
import {
  request,
  spdyClient,
  spdyCommand,
  spdyLines,
  textOf,
  webSocketClient,
} from "../../../test/support/streaming.ts";
import { silentLogger } from "../../lib/log.ts";
import { selfSignedCertificate } from "./certificate.ts";
import { PendingRequests } from "./pending-requests.ts";
import { FORWARD_TUNNEL } from "./port-forward.ts";
import { endOfHead, MAX_HEAD_BYTES, parseHead } from "./request-head.ts";
import type { Session, StreamingRuntime } from "./runtime.ts";
import { type StreamingOptions, StreamingServer } from "./server.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import { terminalSizes } from "./terminal-sizes.ts";
import type { Wire } from "./wire.ts";

const V4 = "v4.channel.k8s.io";
const servers: StreamingServer[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

/** Everything a client sends comes back, and the command `exit` tells the exit code. */
const echo: StreamingRuntime = {
  async exec({ command }, { stdin, stdout }) {
    for await (const bytes of stdin ?? []) await stdout?.write(bytes);
    stdout?.end();
    return Number(command[0] ?? 0);
  },
  async attach(_target, session) {
    await echo.exec({ containerId: "", command: [], tty: false }, session);
  },
  async portForward(_id, port, stream) {
    if (port === 81) throw new Error("nobody listens");
    for await (const bytes of stream.bytes) await stream.write(bytes);
  },
};

async function serve(runtime: Partial<StreamingRuntime> = {}, options: Partial<StreamingOptions> = {}) {
  const server = await StreamingServer.start(
    { address: "127.0.0.1", port: 0, idleTimeoutMs: 0, ...options },
    { runtime: { ...echo, ...runtime }, logger: silentLogger },
  );
  servers.push(server);
  return server;
}

const streams = { stdin: true, stdout: true, stderr: false, tty: false };
const execUrl = (server: StreamingServer, ...command: string[]): string =>
  server.execUrl({ containerId: "c", command, ...streams });

describe("StreamingServer", () => {
  test("over TLS, with a certificate of its own for all addresses of the host", async () => {
    const tls = selfSignedCertificate();
    const certificate = new X509Certificate(tls.cert);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.checkHost("localhost")).toBe("localhost");
    for (const { address } of Object.values(networkInterfaces()).flatMap((list) => list ?? []))
      expect(certificate.subjectAltName).toContain(
        address.includes(":") ? "IP Address:" : `IP Address:${address}`,
      );
    expect(Date.parse(certificate.validTo) - Date.now()).toBeGreaterThan(300 * 24 * 3_600_000);

    const server = await serve({}, { tls });
    const url = execUrl(server, "5");
    expect(url).toStartWith("https://127.0.0.1:");
    const command = await spdyCommand(url, V4, "stdin", "stdout");
    await command.streams["stdin"]?.write(Buffer.from("secret"));
    command.streams["stdin"]?.end();
    const { stdout, error } = await command.finish();
    expect(stdout).toBe("secret");
    expect(JSON.parse(error ?? "")).toEqual({
      status: "Failure",
      message: "command terminated with non-zero exit code: error executing command [5], exit code 5",
      reason: "NonZeroExitCode",
      details: { causes: [{ reason: "ExitCode", message: "5" }] },
    });
  });

  test("port-forward by SPDY within WebSocket messages", async () => {
    const server = await serve();
    const url = server.portForwardUrl({ podSandboxId: "pod", ports: [] });
    const wire = await tunnel(url);
    const connection = new SpdyConnection(wire, {
      role: "client",
      idleTimeoutMs: 0,
      maxStreams: 0,
      accept: () => false,
    });
    const open = (streamtype: string, port: string) =>
      connection.open(new Map(Object.entries({ streamtype, port, requestid: port })));
    const [error, data] = [await open("error", "80"), await open("data", "80")];
    const sent = "0123456789".repeat(100_000);
    const echoed = textOf(data);
    await data.write(Buffer.from(sent));
    data.end();
    expect((await echoed) === sent).toBe(true);
    expect(await textOf(error)).toBe("");
    const [failed] = [await open("error", "81"), await open("data", "81")];
    expect(await textOf(failed)).toBe("error forwarding port 81 to pod pod, uid : nobody listens");
    connection.close();
  });

  test("many connections over one, and streams that make no pair", async () => {
    const server = await serve();
    const { connection } = await spdyClient(
      server.portForwardUrl({ podSandboxId: "p", ports: [] }),
      "portforward.k8s.io",
    );
    const echoes = Array.from({ length: 100 }, async (_, index) => {
      const headers = { port: "80", requestid: String(index) };
      const data = await connection.open(new Map(Object.entries({ ...headers, streamtype: "data" })));
      const error = await connection.open(new Map(Object.entries({ ...headers, streamtype: "error" })));
      error.end();
      await data.write(Buffer.from(`n${index}`));
      data.end();
      return await textOf(data);
    });
    expect(await Promise.all(echoes)).toEqual(Array.from({ length: 100 }, (_, index) => `n${index}`));
    for (const headers of [
      { streamtype: "data" },
      { streamtype: "data", port: "0" },
      { streamtype: "x", port: "80" },
      { port: "80" },
    ])
      expect(await connection.open(new Map(Object.entries(headers))).catch(String)).toContain("refused");
    // Clients of old name no request: the data stream follows the error stream.
    const error = await connection.open(
      new Map([
        ["streamtype", "error"],
        ["port", "80"],
      ]),
    );
    const data = await connection.open(
      new Map([
        ["streamtype", "data"],
        ["port", "80"],
      ]),
    );
    await data.write(Buffer.from("old"));
    data.end();
    expect(await textOf(data)).toBe("old");
    expect(await textOf(error)).toBe("");
    expect(connection.streams.length).toBeLessThanOrEqual(1);
    connection.close();
  });

  test("who does not read holds the command up, and no memory", async () => {
    let written = 0;
    const gone = Promise.withResolvers<void>();
    const server = await serve({
      async exec(_target, { stdout, gone: signal }) {
        signal.addEventListener("abort", () => gone.resolve());
        try {
          for (;;) {
            await stdout?.write(new Uint8Array(64 << 10));
            written += 64 << 10;
          }
        } catch {
          return 0;
        }
      },
    });
    for (const kind of ["spdy", "webSocket"]) {
      written = 0;
      const lines =
        kind === "spdy"
          ? spdyLines(V4)
          : [
              "Connection: Upgrade",
              "Upgrade: websocket",
              "Sec-WebSocket-Version: 13",
              "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ];
      const { socket } = await request(execUrl(server), lines, kind === "spdy" ? "POST" : "GET");
      if (kind === "spdy") {
        const wire: Wire = { ...sinkWire, write: (bytes) => void socket.write(bytes) };
        const client = new SpdyConnection(wire, {
          role: "client",
          idleTimeoutMs: 0,
          maxStreams: 0,
          accept: () => false,
        });
        for (const type of ["error", "stdin", "stdout"])
          void client.open(new Map([["streamtype", type]])).catch(() => undefined);
      }
      let last = -1;
      await until("it stands still", async () => {
        if (written > 0 && written === last) return true;
        last = written;
        await Bun.sleep(100);
        return false;
      });
      expect(written).toBeLessThan(32 << 20);
      socket.destroy();
      await gone.promise;
    }
  });

  test("a command that does not read holds its client up", async () => {
    const server = await serve({ exec: () => new Promise<number>(() => undefined) });
    const command = await spdyCommand(execUrl(server), V4, "stdin", "stdout");
    let sent = 0;
    void (async () => {
      for (; sent < 1000; sent++) await command.streams["stdin"]?.write(new Uint8Array(100_000));
    })().catch(() => undefined);
    let last = -1;
    await until("it stands still", async () => {
      if (sent > 0 && sent === last) return true;
      last = sent;
      await Bun.sleep(100);
      return false;
    });
    expect(sent).toBeLessThan(300);
    command.connection.close();
  });

  test("a client that goes ends stdin and is told of; one that is idle is let go", async () => {
    const seen: string[] = [];
    const over = Promise.withResolvers<void>();
    const server = await serve(
      {
        async exec(_target, session: Session) {
          session.gone.addEventListener("abort", () => seen.push("gone"));
          for await (const _ of session.stdin ?? []) seen.push("bytes");
          seen.push("end");
          over.resolve();
          return 0;
        },
      },
      { idleTimeoutMs: 200 },
    );
    const command = await spdyCommand(execUrl(server), V4, "stdin", "stdout");
    await command.streams["stdin"]?.write(Buffer.from("x"));
    await over.promise;
    expect(seen).toEqual(["bytes", "gone", "end"]);
  });

  test("what is no request gets an answer and no more", async () => {
    const server = await serve();
    const url = execUrl(server);
    const status = async (target: string, lines: readonly string[], method?: string): Promise<string> => {
      const { head, socket } = await request(target, lines, method);
      socket.destroy();
      return head.slice(9, 12);
    };
    expect(await status(url, ["no colon"])).toBe("400");
    expect(await status(url, [`X-Long: ${"x".repeat(MAX_HEAD_BYTES)}`])).toBe("400");
    expect(await status(url, ["Content-Length: 5"])).toBe("400");
    expect(await status(url, [], "DELETE")).toBe("405");
    expect(await status(url.replace(/\/exec.*/, "/"), [])).toBe("404");
    const key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    const webSocket = ["Connection: Upgrade", "Upgrade: websocket"];
    expect(await status(execUrl(server), [...webSocket, key], "GET")).toBe("400");
    const version = "Sec-WebSocket-Version: 13";
    expect(await status(execUrl(server), [...webSocket, version, "Sec-WebSocket-Key: AA=="], "GET")).toBe(
      "400",
    );
    expect(
      await status(execUrl(server), [...webSocket, version, key, "Sec-WebSocket-Protocol: chat"], "GET"),
    ).toBe("403");
    expect(await status(url, spdyLines(V4))).toBe("101");
  });

  test("attach tells only how it ended", async () => {
    const server = await serve();
    const url = server.attachUrl({ containerId: "c", ...streams });
    const client = await webSocketClient(url, "v5.channel.k8s.io");
    client.send(0, "typed");
    client.raw(Uint8Array.of(255, 0));
    const got: [number, string][] = [];
    for await (const [channel, bytes] of client.messages) got.push([channel, bytes.toString()]);
    expect(got).toEqual([
      [1, ""],
      [1, "typed"],
      [3, '{"status":"Success"}'],
    ]);
  });
});

const sinkWire: Wire = {
  receive: () => undefined,
  write: () => undefined,
  pause: () => undefined,
  resume: () => undefined,
  close: () => undefined,
  destroy: () => undefined,
};

/** Bytes as binary messages, by hand: Bun's WebSocket does not take the protocol's name. */
async function tunnel(url: string): Promise<Wire> {
  const lines = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    `Sec-WebSocket-Protocol: v9.portforward.k8s.io, ${FORWARD_TUNNEL}`,
  ];
  const { head, socket, rest } = await request(url, lines, "GET");
  expect(head).toContain(`Sec-WebSocket-Protocol: ${FORWARD_TUNNEL}\r\n`);
  expect(head).toContain("Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n");
  return {
    ...sinkWire,
    receive(handler) {
      let held = Buffer.from(rest);
      const read = (chunk: Uint8Array): void => {
        held = Buffer.concat([held, chunk]);
        for (let message = messageOf(held); message !== undefined; message = messageOf(held)) {
          held = held.subarray(message.end);
          if (message.binary) handler.data(message.payload);
        }
      };
      socket.on("data", read);
      socket.on("close", () => handler.end());
      read(Buffer.alloc(0));
      socket.resume();
    },
    // A mask of zeros.
    write(bytes) {
      const head = Buffer.alloc(14);
      head.set([0x82, 0xff]);
      head.writeBigUInt64BE(BigInt(bytes.length), 2);
      socket.write(Buffer.concat([head, bytes]));
      return undefined;
    },
    close: () => void socket.end(),
  };
}

function messageOf(bytes: Buffer): { payload: Buffer; end: number; binary: boolean } | undefined {
  if (bytes.length < 10) return undefined;
  const short = bytes[1] ?? 0;
  const start = short === 127 ? 10 : short === 126 ? 4 : 2;
  const size =
    short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
  if (bytes.length < start + size) return undefined;
  return { payload: bytes.subarray(start, start + size), end: start + size, binary: bytes[0] === 0x82 };
}

test("PendingRequests: once, for a minute, a thousand", () => {
  let nowMs = 0;
  const pending = new PendingRequests<number>(() => nowMs);
  const token = pending.add(1);
  expect(token).toMatch(/^[\w-]{24}$/);
  expect(pending.take("other")).toBeUndefined();
  expect(pending.take(token)).toBe(1);
  expect(pending.take(token)).toBeUndefined();
  const tokens = Array.from({ length: 1000 }, (_, index) => pending.add(index));
  expect(new Set(tokens).size).toBe(1000);
  expect(() => pending.add(0)).toThrow("maximum number of in-flight requests exceeded");
  nowMs = 59_999;
  expect(pending.take(tokens[5] ?? "")).toBe(5);
  nowMs = 60_000;
  expect(pending.take(tokens[6] ?? "")).toBeUndefined();
  expect(pending.take(pending.add(7))).toBe(7);
});

test("parseHead: lists over several lines, names in any case", () => {
  const text = "GET /exec/x?y=z HTTP/1.1\r\nA: 1\r\na:2 , 3\r\nHost:\r\n\r\n";
  const head = parseHead(text);
  expect(head).toMatchObject({ method: "GET", path: "/exec/x" });
  expect(head.headers.get("a")).toEqual(["1", "2 , 3"]);
  expect(endOfHead(Buffer.from(`${text}rest`))).toBe(text.length);
  for (const bad of [
    "GET / HTTP/1.0\r\n\r\n",
    "get / HTTP/1.1\r\n\r\n",
    "GET x HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\na b: c\r\n\r\n",
    "GET / HTTP/1.1\r\na: \x01\r\n\r\n",
  ])
    expect(() => parseHead(bad)).toThrow("malformed");
});

test("terminalSizes: objects one after another, up to what is none", async () => {
  const sizes = async (...texts: string[]) => {
    async function* bytes(): AsyncGenerator<Uint8Array> {
      for (const text of texts) yield Buffer.from(text);
    }
    const all: string[] = [];
    for await (const { width, height } of terminalSizes(bytes())) all.push(`${width}x${height}`);
    return all;
  };
  expect(await sizes('{"Width":80,"Height":24}\n{"wid', 'th":1,"HEIGHT":2}{"Width":3}')).toEqual([
    "80x24",
    "1x2",
    "3x0",
  ]);
  expect(await sizes('{"Width":70000,"Height":1}{"Width":1,"Height":1}')).toEqual([]);
  expect(await sizes("nonsense}", '{"Width":1,"Height":1}')).toEqual([]);
  expect(await sizes("x".repeat(5000), '{"Width":1,"Height":1}')).toEqual([]);
});
