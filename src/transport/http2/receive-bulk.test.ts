import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import {
  F,
  frame,
  grpcRequest,
  PREFACE,
  request,
  settings,
  T,
} from "../../../test/conformance/http2/raw-client.ts";
import { removeFolder, temporaryFolder } from "../../../test/support/processes.ts";
import { silentLogger } from "../../lib/log.ts";
import { setSendBuffer } from "../../linux/socket.ts";
import { EnvelopeDecoder } from "../grpc/envelope.ts";
import type { GrpcStream } from "../grpc/stream.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { Http2Server } from "./engine.ts";

const FRAME_BYTES = 16 << 10;
const BULK_FRAMES = 100;

/** Tells its place in every byte. */
const patternOf = (seed: number, size: number): Buffer =>
  Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 7 + (at >> 8) + seed * 31) & 0xff));

/** Bodies as their receivers have them when all has come: of bulk, of a call that keeps chunks, of what is no gRPC. */
function bodies() {
  const kept: Record<string, Uint8Array[]> = { "/t/Bulk": [], "/t/Kept": [], "/t/Universal": [] };
  const ended = Promise.withResolvers<void>();
  const grpc = (stream: GrpcStream): void => {
    const chunks = kept[stream.path] ?? [];
    const sink = { message: (bytes: Uint8Array) => chunks.push(bytes) > 0 };
    const decoder = new EnvelopeDecoder(sink, DEFAULT_LIMITS.maxReceiveBytes);
    stream.receive({
      data: (chunk) => (stream.path === "/t/Bulk" ? decoder.push(chunk) : chunks.push(chunk)),
      end: () => ended.resolve(),
      cancelled: (reason) => ended.reject(new Error(reason)),
      get copiedBytes() {
        return stream.path === "/t/Bulk" ? decoder.copiedBytes : 0;
      },
    });
  };
  const universal = async ({ body }: { readonly body?: unknown }) => {
    for await (const chunk of body as AsyncIterable<Uint8Array>) kept["/t/Universal"]?.push(chunk);
    return { status: 200 };
  };
  return {
    kept,
    ended: ended.promise,
    handlers: { grpc, universal, logger: silentLogger, limits: DEFAULT_LIMITS },
  };
}

/** Between the frames of a large message: whole small messages, bodies that are no gRPC, PINGs. */
function traffic(): {
  readonly bytes: Buffer;
  readonly sent: Record<string, Buffer>;
  readonly pings: Buffer[];
} {
  const bulk = patternOf(0, BULK_FRAMES * FRAME_BYTES - 5);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(bulk.length, 1);
  const body = Buffer.concat([prefix, bulk]);
  const parts = [Buffer.from(PREFACE), frame(T.settings, 0, 0, settings([]))];
  parts.push(frame(T.headers, F.endHeaders, 1, grpcRequest("/t/Bulk")));
  parts.push(frame(T.headers, F.endHeaders, 3, grpcRequest("/t/Kept")));
  parts.push(frame(T.headers, F.endHeaders, 5, request("/t/Universal")));
  const others: Record<3 | 5, Buffer[]> = { 3: [], 5: [] };
  const pings: Buffer[] = [];
  for (let index = 0; index < BULK_FRAMES; index++) {
    const last = index === BULK_FRAMES - 1;
    for (const id of [3, 5] as const) {
      const piece = patternOf(index * id, 50 + index);
      others[id].push(piece);
      parts.push(frame(T.data, 0, id, piece));
    }
    if (index % 50 === 25) {
      const ping = patternOf(index, 8);
      pings.push(ping);
      parts.push(frame(T.ping, 0, 0, ping));
    }
    const piece = body.subarray(index * FRAME_BYTES, (index + 1) * FRAME_BYTES);
    parts.push(frame(T.data, last ? F.endStream : 0, 1, piece));
  }
  const sent = {
    "/t/Bulk": bulk,
    "/t/Kept": Buffer.concat(others[3]),
    "/t/Universal": Buffer.concat(others[5]),
  };
  return { bytes: Buffer.concat(parts), sent, pings };
}

test("what comes between the frames of a large message is not lost when the memory that it came in is used again", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "s");
  const { kept, ended, handlers } = bodies();
  const engine = new Http2Server(handlers);
  const server = createServer({ allowHalfOpen: true }, (socket) => engine.accept(socket, Buffer.alloc(0)));
  server.listen({ path });
  await once(server, "listening");
  const client: Socket = connect(path);
  const back: Buffer[] = [];
  client.on("data", (chunk: Buffer) => back.push(chunk));
  await once(client, "connect");
  const { bytes, sent, pings } = traffic();
  // All of it waits in the kernel when the server is woken.
  setSendBuffer((client as unknown as { _handle: { fd: number } })._handle.fd, 4 << 20);
  client.write(bytes);
  await ended;
  // A body that is no gRPC is read by and by.
  while (Buffer.concat(kept["/t/Universal"] ?? []).length < (sent["/t/Universal"]?.length ?? 0))
    await new Promise(setImmediate);
  for (const [name, body] of Object.entries(sent))
    expect(Buffer.concat(kept[name] ?? []).equals(body)).toBe(true);
  while (!pings.every((ping) => Buffer.concat(back).includes(frame(T.ping, F.ack, 0, ping))))
    await once(client, "data");
  client.destroy();
  engine.destroy();
  server.close();
  removeFolder(folder);
});
