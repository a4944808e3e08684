import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
