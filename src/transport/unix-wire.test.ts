import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { receiveNow } from "../linux/socket.ts";
import { descriptorOf } from "./http2/descriptor.ts";
import { UnixWire } from "./unix-wire.ts";

let folder: string;
let server: Server | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "unix-wire-"));
});

afterEach(() => {
  server?.close();
  server = undefined;
  rmSync(folder, { recursive: true });
});

/** The server's side of one connection. */
function serve(path: string): Promise<Socket> {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, resolve).listen(path);
  return promise;
}

function told(wire: UnixWire, event: "connect" | "drain" | "end" | "close"): Promise<void> {
  return new Promise((resolve) => wire.on(event, resolve));
}

test.each([
  ["nothing is there", () => undefined, "ENOENT"],
  ["nobody listens", (path: string) => writeFileSync(path, ""), "ECONNREFUSED"],
])("where %s it says so, and that it is closed", async (_name, make, code) => {
  const path = join(folder, "s");
  make(path);
  const wire = new UnixWire(path);
  const events: string[] = [];
  wire.on("error", (error: NodeJS.ErrnoException) => events.push(`${error.message} (${error.code})`));
  await told(wire, "close");
  expect(events).toEqual([`connect ${code} ${path} (${code})`]);
  expect([wire.connecting, wire.destroyed, wire.write(Buffer.from("x"))]).toEqual([false, true, false]);
});

test("what the kernel does not take waits, is told when it has left, and is followed by the end", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  let written = 0;
  expect(wire.write(Buffer.from("early"), () => written++)).toBe(false);
  await told(wire, "connect");
  const piece = Buffer.alloc(1 << 20, "y");
  while (wire.write(piece, () => written++));
  const waiting = wire.writableLength;
  expect(waiting).toBeGreaterThan(0);
  const drained = told(wire, "drain");
  const socket = await peer;
  let received = 0;
  socket.on("data", (chunk) => {
    received += chunk.length;
  });
  const ended = new Promise((resolve) => socket.once("end", resolve));
  socket.resume();
  await drained;
  expect(wire.writableLength).toBe(0);
  wire.write(piece);
  wire.end();
  await ended;
  expect([received, written]).toEqual([5 + written * piece.length, written]);
  socket.end();
});

test("room is never told within a write, which would let others in between a caller's writes", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  await told(wire, "connect");
  const fd = descriptorOf(await peer) ?? -1;
  while (wire.write(Buffer.alloc(32 << 10)));
  const order: string[] = [];
  const drained = new Promise<void>((resolve) =>
    wire.on("drain", () => {
      order.push("drain");
      resolve();
    }),
  );
  const taken = Buffer.alloc(1 << 20);
  while (receiveNow(fd, taken) > 0);
  wire.write(Buffer.from("x"));
  order.push(`written, ${wire.writableLength} wait`);
  await drained;
  expect(order).toEqual(["written, 0 wait", "drain"]);
  wire.destroy();
});

test("one that is destroyed before it is connected, or after, is closed once and silent", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const early = new UnixWire(path);
  early.destroy();
  await told(early, "close");
  const wire = new UnixWire(path);
  await told(wire, "connect");
  let closed = 0;
  wire.on("data", () => closed++);
  const socket = await peer;
  socket.on("end", () => socket.end()).resume();
  const gone = new Promise((resolve) => socket.once("close", resolve));
  wire.destroy();
  wire.destroy();
  await new Promise<void>((resolve) =>
    wire.on("close", () => {
      closed += 1;
      resolve();
    }),
  );
  await gone;
  expect(closed).toBe(1);
});

test("what the server sends after our end still comes", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  let received = 0;
  wire.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  await told(wire, "connect");
  const socket = await peer;
  const ours = new Promise((resolve) => socket.on("end", resolve).resume());
  wire.end();
  await ours;
  socket.end(Buffer.alloc(3 << 20));
  await told(wire, "close");
  expect(received).toBe(3 << 20);
});

test("the server's end is told behind its data, and ours follows", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  const events: string[] = [];
  wire.on("data", (chunk: Buffer) => events.push(String(chunk)));
  wire.on("end", () => events.push("end"));
  await told(wire, "connect");
  wire.pause();
  const socket = await peer;
  const ours = new Promise((resolve) => socket.on("end", resolve).resume());
  await new Promise<void>((resolve) => socket.end("last", resolve));
  wire.resume();
  await Promise.all([ours, told(wire, "close")]);
  expect(events).toEqual(["last", "end"]);
});

test("a reset is worded as by node:net", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  const messages: string[] = [];
  wire.on("error", (error: Error) => messages.push(error.message));
  await told(wire, "connect");
  wire.write(Buffer.from("never read"));
  (await peer).destroy();
  await told(wire, "close");
  expect(messages).toEqual(["read ECONNRESET"]);
});

test("what a listener throws is told, and closes the connection", async () => {
  const path = join(folder, "s");
  const peer = serve(path);
  const wire = new UnixWire(path);
  const events: string[] = [];
  wire.on("data", () => {
    throw new Error("no");
  });
  wire.on("error", (error: Error) => events.push(error.message));
  const socket = await peer;
  const gone = new Promise((resolve) => socket.once("close", resolve));
  socket.on("end", () => socket.end()).resume();
  socket.write("x");
  await Promise.all([gone, told(wire, "close")]);
  expect(events).toEqual(["no"]);
});
