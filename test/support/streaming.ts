/** Clients of a streaming server: SPDY by our own connection in its client's role, WebSocket by Bun's. */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { SpdyConnection } from "../../src/cri/streaming/spdy/connection.ts";
import type { SpdyStream } from "../../src/cri/streaming/spdy/stream.ts";
import { socketWire } from "../../src/cri/streaming/wire.ts";

export interface Upgraded {
  /** Status line and headers. */
  readonly head: string;
  readonly socket: Socket;
  /** What came behind the head. */
  readonly rest: Buffer;
}

/** Sends a request's head and reads the answer's. */
export async function request(url: string, lines: readonly string[], method = "POST"): Promise<Upgraded> {
  const { hostname, port, pathname, protocol } = new URL(url);
  const target = { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port) };
  const socket =
    protocol === "https:"
      ? connectTls({ ...target, rejectUnauthorized: false })
      : connect({ ...target, allowHalfOpen: true });
  socket.on("error", () => undefined);
  socket.write([`${method} ${pathname} HTTP/1.1`, `Host: ${hostname}`, ...lines, "", ""].join("\r\n"));
  let bytes = Buffer.alloc(0);
  await new Promise<void>((resolve) => {
    const read = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      if (!bytes.includes("\r\n\r\n")) return;
      socket.off("data", read);
      socket.pause();
      resolve();
    };
    socket.on("data", read);
    socket.once("close", () => resolve());
  });
  const end = bytes.indexOf("\r\n\r\n") + 4;
  return { head: bytes.toString("latin1", 0, end), socket, rest: Buffer.from(bytes.subarray(end)) };
}

export interface SpdyClient {
  readonly connection: SpdyConnection;
  readonly head: string;
}

export const spdyLines = (...protocols: readonly string[]): string[] => [
  "Connection: Upgrade",
  "Upgrade: SPDY/3.1",
  ...protocols.map((protocol) => `X-Stream-Protocol-Version: ${protocol}`),
];

export async function spdyClient(url: string, ...protocols: readonly string[]): Promise<SpdyClient> {
  const { head, socket, rest } = await request(url, spdyLines(...protocols));
  if (!head.startsWith("HTTP/1.1 101 ")) {
    socket.destroy();
    throw new Error(`not upgraded: ${head}`);
  }
  const options = { role: "client", idleTimeoutMs: 0, maxStreams: 0, accept: () => false } as const;
  return { connection: new SpdyConnection(socketWire(socket, rest), options), head };
}

/** All that comes in a stream. */
export async function textOf(stream: { readonly bytes: AsyncIterable<Uint8Array> }): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream.bytes) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export interface Command {
  readonly streams: Readonly<Record<string, SpdyStream>>;
  readonly connection: SpdyConnection;
  /** Reads all outputs to their ends. */
  finish(): Promise<Record<string, string>>;
}

/** Makes the streams of an exec or an attach, the error stream first as kubectl does. */
export async function spdyCommand(
  url: string,
  protocol: string,
  ...types: readonly string[]
): Promise<Command> {
  const { connection } = await spdyClient(url, protocol);
  const streams: Record<string, SpdyStream> = {};
  for (const type of ["error", ...types])
    streams[type] = await connection.open(new Map([["streamtype", type]]));
  return {
    streams,
    connection,
    async finish() {
      const outputs = Object.entries(streams).filter(([type]) => type !== "stdin" && type !== "resize");
      const texts = await Promise.all(
        outputs.map(async ([type, stream]) => [type, await textOf(stream)] as const),
      );
      connection.close();
      return Object.fromEntries(texts);
    },
  };
}

export interface WebSocketClient {
  readonly protocol: string;
  /** Channel and bytes of each message, decoded; a Bun that had an error closes. */
  readonly messages: AsyncIterable<readonly [channel: number, bytes: Buffer]>;
  send(channel: number, bytes: Uint8Array | string): void;
  raw(bytes: Uint8Array): void;
  close(): void;
}

export async function webSocketClient(
  url: string,
  ...protocols: readonly string[]
): Promise<WebSocketClient> {
  const socket = new WebSocket(url.replace(/^http/, "ws"), { protocols: [...protocols] });
  socket.binaryType = "arraybuffer";
  const queue: (readonly [number, Buffer])[] = [];
  let over = false;
  let wake = Promise.withResolvers<void>();
  const base64 = (): boolean => socket.protocol.includes("base64");
  socket.addEventListener("message", ({ data }) => {
    const bytes = Buffer.from(data as ArrayBuffer);
    queue.push(
      base64()
        ? [(bytes[0] ?? 0) - 0x30, Buffer.from(bytes.toString("latin1", 1), "base64")]
        : [bytes[0] ?? 255, bytes.subarray(1)],
    );
    wake.resolve();
  });
  const opened = new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("close", () => {
      over = true;
      wake.resolve();
      reject(new Error("WebSocket closed"));
    });
  });
  await opened;
  async function* messages(): AsyncGenerator<readonly [number, Buffer]> {
    for (;;) {
      const next = queue.shift();
      if (next !== undefined) yield next;
      else if (over) return;
      else {
        await wake.promise;
        wake = Promise.withResolvers();
      }
    }
  }
  return {
    protocol: socket.protocol,
    messages: messages(),
    send(channel, bytes) {
      const data = Buffer.from(bytes as Uint8Array);
      if (base64()) socket.send(`${channel}${data.toString("base64")}`);
      else socket.send(Buffer.concat([Buffer.of(channel), data]));
    },
    raw: (bytes) => socket.send(bytes),
    close: () => socket.close(),
  };
}
