/** One socket for all protocols: who gets in, what garbage gets, how it closes. */
import { describe, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { silentLogger } from "../../../src/lib/log.ts";
import type { ListenAddress } from "../../../src/transport/listen.ts";
import { Listener, type ListenerOptions } from "../../../src/transport/listener.ts";
import { run, temporaryFolder } from "../../support/processes.ts";
import { answerOf, connectWire, envelope, statusOf } from "./client.ts";
import { ENGINES, startServer } from "./server.ts";
import { conformanceService, encodePayload, pathOf } from "./service.ts";

const ECHO = pathOf("Echo");
const empty = envelope(new Uint8Array(0));
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

function listenerAt(address: ListenAddress, options: Partial<ListenerOptions> = {}): Listener {
  return new Listener(address, {
    bindings: [conformanceService().binding],
    logger: silentLogger,
    ...options,
  });
}

async function started(address: ListenAddress, options?: Partial<ListenerOptions>): Promise<Listener> {
  const listener = listenerAt(address, options);
  await listener.start();
  return listener;
}

/** Opens a connection, sends, and keeps what comes back. */
function rawConnection(path: string, bytes?: string | Uint8Array) {
  const socket: Socket = connect(path);
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
  });
  socket.on("error", () => undefined);
  if (bytes !== undefined) socket.write(bytes);
  const closed = new Promise<string>((resolve) => socket.on("close", () => resolve(received)));
  const connected = new Promise<void>((resolve) => socket.on("connect", () => resolve()));
  return { socket, closed, connected, received: () => received };
}

describe("unix socket", () => {
  test("is for its owner and group, in a directory that others may pass", async () => {
    const folder = join(temporaryFolder(), "run");
    const path = join(folder, "a.sock");
    const listener = await started({ path, uid: 12, gid: 34 });
    const { mode, uid, gid } = lstatSync(path);
    expect([mode & 0o777, uid, gid]).toEqual([0o660, 12, 34]);
    expect(lstatSync(folder).mode & 0o777).toBe(0o711);
    await using client = connectWire(path);
    expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    await listener.close(1000);
    expect(existsSync(path)).toBe(false);
    const narrow = await started({ path, mode: 0o600 });
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    await narrow.close(0);
  });

  test("replaces a stale socket", async () => {
    const path = join(temporaryFolder(), "a.sock");
    const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
    await run([process.execPath, "-e", script]);
    expect(lstatSync(path).isSocket()).toBe(true);
    const listener = await started({ path });
    await using client = connectWire(path);
    expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    await listener.close(0);
  });

  test("a live one is an error that names it, and lives on", async () => {
    const path = join(temporaryFolder(), "a.sock");
    const first = await started({ path });
    const second = listenerAt({ path });
    const error = {
      code: "AlreadyExists",
      message: expect.stringContaining(`listen on ${path}: address already in use`),
    };
    await expect(second.start()).rejects.toMatchObject(error);
    await using client = connectWire(path);
    expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    await first.close(0);
  });

  test("something else at the path is left alone", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "a.sock");
    writeFileSync(path, "precious");
    await expect(started({ path })).rejects.toMatchObject({ code: "FailedPrecondition" });
    expect(await Bun.file(path).text()).toBe("precious");
    const nested = join(folder, "dir");
    mkdirSync(nested);
    await expect(started({ path: nested })).rejects.toMatchObject({ code: "FailedPrecondition" });
    await expect(started({ path: join(folder, "x".repeat(100)) })).rejects.toMatchObject({
      code: "InvalidArgument",
    });
  });

  test("a successor's socket is not removed", async () => {
    const path = join(temporaryFolder(), "a.sock");
    const first = await started({ path });
    await run(["rm", path]);
    const second = await started({ path });
    await first.close(0);
    await using client = connectWire(path);
    expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    await second.close(0);
  });
});

test("a TCP address serves the same", async () => {
  const listener = await started({ host: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${listener.port}/nothing`;
  expect((await fetch(url)).status).toBe(404);
  await expect(started({ host: "127.0.0.1", port: listener.port })).rejects.toMatchObject({
    code: "AlreadyExists",
  });
  await listener.close(0);
});

for (const [name, engine] of ENGINES) {
  describe(`${name}: hostile connections`, () => {
    test("garbage, half a preface, HTTP/1.0 and silence leave the daemon well", async () => {
      await using server = await startServer(engine, { limits: { sniffTimeoutMs: 300 } });
      const garbage = rawConnection(server.path, Buffer.from([0, 1, 2, 3, 255, 254, 10, 10, 13, 10]));
      expect(await garbage.closed).toBe("");
      const almost = rawConnection(server.path, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
      expect(await almost.closed).toBe("");
      const wrong = rawConnection(server.path, "GET / HTTP/1.1\r\nno field\r\n\r\n");
      expect(await wrong.closed).toStartWith("HTTP/1.1 400 ");
      const old = rawConnection(server.path, "GET / HTTP/1.0\r\n\r\n");
      expect(await old.closed).toMatch(/^HTTP\/1\.[01] 404 /);
      const half = rawConnection(server.path, PREFACE.slice(0, 10));
      half.socket.on("connect", () => half.socket.end());
      expect(await half.closed).toBe("");
      const silent = rawConnection(server.path);
      const started = rawConnection(server.path, PREFACE.slice(0, 10));
      expect([await silent.closed, await started.closed]).toEqual(["", ""]);
      const nonsense = rawConnection(server.path, `${PREFACE}${"\u0000\u00ff".repeat(100)}`);
      await nonsense.closed;
      await using client = connectWire(server.path);
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    });

    test("HTTP/1.1 connections without a request are closed after a while", async () => {
      await using server = await startServer(engine, { limits: { http1IdleTimeoutMs: 200 } });
      const partial = rawConnection(server.path, "GET / HTTP/1.1\r\nhost");
      const idle = rawConnection(server.path, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      expect(await partial.closed).not.toContain("200");
      expect(await idle.closed).toStartWith("HTTP/1.1 404 ");
      const long = rawConnection(
        server.path,
        `GET / HTTP/1.1\r\nhost: x\r\nx: ${"a".repeat(1 << 20)}\r\n\r\n`,
      );
      expect(await long.closed).toMatch(/^(?:HTTP\/1.1 4..|$)/);
    });

    test("the time to show a protocol is no limit of the connection", async () => {
      await using server = await startServer(engine, { limits: { sniffTimeoutMs: 50 } });
      await using client = connectWire(server.path);
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
      // One that says nothing, opened later, is closed after the same time.
      await rawConnection(server.path).closed;
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    });

    test("a preface in single bytes is still HTTP/2", async () => {
      await using server = await startServer(engine);
      const slow = rawConnection(server.path);
      for (const byte of PREFACE) {
        slow.socket.write(byte);
        await new Promise((resolve) => setImmediate(resolve));
      }
      slow.socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
      await new Promise((resolve) => slow.socket.once("data", resolve));
      // The server's SETTINGS frame.
      expect(slow.received().charCodeAt(3)).toBe(4);
      slow.socket.destroy();
      await slow.closed;
    });

    test("a thousand connections, and their sudden end", async () => {
      await using server = await startServer(engine);
      const many = Array.from({ length: 1000 }, () => rawConnection(server.path, PREFACE));
      await Promise.all(many.map(({ connected }) => connected));
      await using client = connectWire(server.path);
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
      for (const { socket } of many) socket.destroy();
      await Promise.all(many.map(({ closed }) => closed));
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    }, 30_000);

    test("clients that vanish while they are answered crash nothing", async () => {
      await using server = await startServer(engine);
      const body = envelope(encodePayload({ data: new Uint8Array(1 << 20), count: 100 }));
      for (let round = 0; round < 20; round++) {
        const client = connectWire(server.path);
        const stream = client.open(pathOf("Spread"));
        stream.end(body);
        await new Promise((resolve) => stream.once("data", resolve));
        client.session.destroy();
      }
      while (server.seen.running > 0) await server.seen.left();
      await using client = connectWire(server.path);
      expect(statusOf(await client.call(ECHO, empty)).status).toBe(0);
    }, 30_000);
  });

  describe(`${name}: close`, () => {
    test("a call in flight ends well, new connections are refused, the socket is gone", async () => {
      let go: () => void = () => undefined;
      const waiting = new Promise<void>((resolve) => {
        go = resolve;
      });
      await using server = await startServer(engine, { behaviours: { wait: () => waiting } });
      const client = connectWire(server.path);
      const http1 = rawConnection(server.path, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await new Promise((resolve) => http1.socket.once("data", resolve));
      const answered = client.call(ECHO, envelope(encodePayload({ text: "wait" })));
      const json = '{"text":"wait"}';
      const post = `POST ${ECHO} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${json.length}`;
      const busy = rawConnection(server.path, `${post}\r\n\r\n${json}`);
      await server.seen.entered("Echo");
      await server.seen.entered("Echo");
      const closing = server.listener.close(10_000);
      expect(existsSync(server.path)).toBe(false);
      expect(await http1.closed).toStartWith("HTTP/1.1 404 ");
      const late = rawConnection(server.path);
      expect(await late.closed).toBe("");
      go();
      expect(statusOf(await answered).status).toBe(0);
      expect(await busy.closed).toEndWith(json);
      await closing;
    });

    test("what does not end in time is cancelled", async () => {
      await using server = await startServer(engine);
      const client = connectWire(server.path);
      const stream = client.open(pathOf("Spread"));
      stream.end(envelope(encodePayload({ count: -1 })));
      await server.seen.entered("Spread");
      const answered = answerOf(stream);
      const left = server.seen.left();
      await server.listener.close(20);
      await left;
      await answered;
      expect(server.observed.map(({ code }) => code)).toEqual(["Canceled"]);
    });
  });
}
