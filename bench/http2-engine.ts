/**
 * The HTTP/2 engine alone, without a daemon behind it: unary calls by h2load, and bytes a second each way by a client of raw
 * frames. `bun bench/http2-engine.ts` starts its server as a process of its own; figures are of the machine as it is.
 */
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { silentLogger } from "../src/lib/log.ts";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../src/transport/grpc/answers.ts";
import type { GrpcStream } from "../src/transport/grpc/stream.ts";
import { Http2Server } from "../src/transport/http2/engine.ts";
import { DEFAULT_LIMITS } from "../src/transport/limits.ts";
import { frame, u32 } from "../test/conformance/http2/raw-client.ts";
import { removeFolder, start, temporaryFolder } from "../test/support/processes.ts";
import { h2load } from "./h2load.ts";

const BULK_BYTES = 1 << 30;
const MESSAGE_BYTES = 1 << 20;
const FRAME_BYTES = 1 << 14;
const REQUESTS = 100_000;
const WINDOW = 2 ** 31 - 1;

const answer = Buffer.alloc(200, 97);
const piece = Buffer.alloc(MESSAGE_BYTES, 98);

/** `/bench/Down` sends {@link BULK_BYTES}, all others answer 200 bytes when the request has ended. */
function handle(stream: GrpcStream): void {
  if (stream.path === "/bench/Down") void sendBulk(stream);
  const done = (): void => {
    if (stream.path !== "/bench/Down") stream.respond(RESPONSE_HEADERS, answer, OK_TRAILERS);
  };
  stream.receive({ data: () => undefined, end: done, cancelled: () => undefined });
}

async function sendBulk(stream: GrpcStream): Promise<void> {
  stream.sendHeaders(RESPONSE_HEADERS);
  for (let sent = 0; sent < BULK_BYTES; sent += MESSAGE_BYTES) {
    if (!stream.writeMessage(piece, false)) await stream.drained();
  }
  stream.end(OK_TRAILERS);
}

function serve(path: string): void {
  const universal = () => Promise.resolve({ status: 404 });
  const engine = new Http2Server({ grpc: handle, universal, logger: silentLogger, limits: DEFAULT_LIMITS });
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.pause();
    engine.accept(socket, Buffer.alloc(0));
  });
  server.listen({ path }, () => process.stdout.write("listening\n"));
}

function literal(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.of(0, name.length),
    Buffer.from(name),
    Buffer.of(value.length),
    Buffer.from(value),
  ]);
}

/** Opens a connection and stream 1 of `path`. */
function open(socketPath: string, path: string, endStream: boolean): Promise<Socket> {
  const block = Buffer.concat([
    Buffer.of(0x83, 0x86),
    literal(":path", path),
    literal("content-type", "application/grpc"),
  ]);
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath, () => {
      socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
      socket.write(frame(4, 0, 0, Buffer.concat([Buffer.of(0, 4), u32(WINDOW)])));
      socket.write(frame(8, 0, 0, u32(WINDOW - 65_535)));
      socket.write(frame(1, endStream ? 5 : 4, 1, block));
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

/** Bytes a second of one stream from the server. */
async function download(socketPath: string): Promise<number> {
  const socket = await open(socketPath, "/bench/Down", true);
  const startedMs = performance.now();
  let received = 0;
  await new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received >= BULK_BYTES) resolve();
    });
  });
  socket.destroy();
  return BULK_BYTES / ((performance.now() - startedMs) / 1000);
}

/** Bytes a second of one stream to the server, as its windows allow. */
async function upload(socketPath: string): Promise<number> {
  const socket = await open(socketPath, "/bench/Up", false);
  const startedMs = performance.now();
  const window = { connection: 65_535, stream: 65_535, initial: 65_535 };
  const data = frame(0, 0, 1, piece.subarray(0, FRAME_BYTES));
  const batch = Buffer.concat(Array.from({ length: 8 }, () => data));
  let left = BULK_BYTES;
  await new Promise<void>((resolve) => {
    const push = (): void => {
      while (left > 0 && !socket.writableNeedDrain) {
        const frames = Math.min(8, Math.floor(Math.min(window.connection, window.stream) / FRAME_BYTES));
        if (frames === 0) return;
        socket.write(batch.subarray(0, frames * data.length));
        left -= frames * FRAME_BYTES;
        window.connection -= frames * FRAME_BYTES;
        window.stream -= frames * FRAME_BYTES;
      }
      if (left <= 0) socket.write(frame(0, 1, 1, Buffer.alloc(0)));
    };
    let rest: Buffer = Buffer.alloc(0);
    socket.on("drain", push);
    socket.on("data", (chunk: Buffer) => {
      rest = takeFrames(Buffer.concat([rest, chunk]), window, socket, resolve);
      if (left > 0) push();
    });
  });
  socket.destroy();
  return BULK_BYTES / ((performance.now() - startedMs) / 1000);
}

/** Reads what moves the windows; answers the bytes of a frame that is not whole. */
function takeFrames(
  bytes: Buffer,
  window: { connection: number; stream: number; initial: number },
  socket: Socket,
  answered: () => void,
): Buffer {
  let at = 0;
  while (bytes.length - at >= 9) {
    const end = at + 9 + bytes.readUIntBE(at, 3);
    if (bytes.length < end) break;
    const [type, flags, id] = [bytes[at + 3], bytes[at + 4], bytes.readUInt32BE(at + 5)];
    if (type === 8 && id === 0) window.connection += bytes.readUInt32BE(at + 9);
    else if (type === 8) window.stream += bytes.readUInt32BE(at + 9);
    else if (type === 6 && flags === 0) socket.write(frame(6, 1, 0, bytes.subarray(at + 9, end)));
    else if (type === 4 && flags === 0) {
      for (let entry = at + 9; entry < end; entry += 6) {
        if (bytes.readUInt16BE(entry) !== 4) continue;
        window.stream += bytes.readUInt32BE(entry + 2) - window.initial;
        window.initial = bytes.readUInt32BE(entry + 2);
      }
      socket.write(frame(4, 1, 0, Buffer.alloc(0)));
    } else if (type === 1) answered();
    at = end;
  }
  return bytes.subarray(at);
}

async function measure(): Promise<void> {
  const folder = temporaryFolder();
  const socketPath = join(folder, "bench.sock");
  const child = start([process.execPath, import.meta.path, socketPath], { stdout: "pipe", stdin: "ignore" });
  try {
    await child.stdout.getReader().read();
    for (const connections of [1, 4, 32]) {
      for (const streams of [1, 10]) {
        const load = {
          socket: socketPath,
          path: "/bench/Unary",
          namespace: "bench",
          message: Buffer.from("\n\x03web"),
        };
        const { perSecond } = await h2load(folder, { ...load, requests: REQUESTS, connections, streams });
        process.stdout.write(
          `unary, ${connections} connections, ${streams} streams: ${Math.round(perSecond)} req/s\n`,
        );
      }
    }
    for (const [name, run] of [
      ["down", download],
      ["up", upload],
    ] as const) {
      const rates: number[] = [];
      for (let round = 0; round < 3; round++) rates.push(await run(socketPath));
      process.stdout.write(`bulk ${name}: ${(Math.max(...rates) / 1e9).toFixed(2)} GB/s\n`);
    }
  } finally {
    child.kill();
    await child.exited;
    removeFolder(folder);
  }
}

const [socketArgument] = process.argv.slice(2);
if (socketArgument === undefined) await measure();
else serve(socketArgument);
