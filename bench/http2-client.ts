/**
 * A gRPC client that costs next to nothing, so that what is measured is the daemon: unary calls on one HTTP/2 connection,
 * headers encoded once a method, answers told apart only by whether they hold a message. Never for anything but measuring.
 */
import { connect, type Socket } from "node:net";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_WINDOW = 2 ** 31 - 1;
const FIRST_WINDOW = 65_535;

const DATA = 0;
const HEADERS = 1;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;

/** A prepared method: its HEADERS block. */
export interface Method {
  readonly block: Buffer;
}

/** Literal fields without indexing and without Huffman coding (RFC 7541, 6.2.2). */
export function methodOf(path: string, namespace: string): Method {
  const literal = (name: string, value: string): Buffer =>
    Buffer.concat([Buffer.of(0), sized(name), sized(value)]);
  const block = [
    Buffer.of(0x83, 0x86),
    literal(":path", path),
    literal(":authority", "localhost"),
    literal("content-type", "application/grpc"),
    literal("te", "trailers"),
    literal("containerd-namespace", namespace),
  ];
  return { block: Buffer.concat(block) };
}

function sized(text: string): Buffer {
  if (text.length > 126) throw new Error(`${text} is too long for a one byte length`);
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text)]);
}

interface Call {
  answered: boolean;
  readonly done: (answered: boolean) => void;
  readonly failed: (error: Error) => void;
}

export class BenchConnection {
  readonly #socket: Socket;
  readonly #calls = new Map<number, Call>();
  readonly #blocked: { bytes: Buffer; size: number }[] = [];
  #nextStream = 1;
  #window = FIRST_WINDOW;
  #rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (error) => this.#end(error));
    socket.on("close", () => this.#end(new Error("the daemon closed the connection")));
    const window = Buffer.alloc(6);
    window.writeUInt16BE(4, 0);
    window.writeUInt32BE(MAX_WINDOW, 2);
    const grow = Buffer.alloc(4);
    grow.writeUInt32BE(MAX_WINDOW - FIRST_WINDOW);
    socket.write(
      Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0, window), frame(WINDOW_UPDATE, 0, 0, grow)]),
    );
  }

  static open(path: string): Promise<BenchConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once("connect", () => resolve(new BenchConnection(socket)));
      socket.once("error", reject);
    });
  }

  /** Resolves when the call has ended. @throws if it ended without a message, which is how gRPC refuses a unary call */
  async call(method: Method, message: Uint8Array): Promise<void> {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    const body = frame(DATA, END_STREAM, stream, Buffer.concat([head, message]));
    const bytes = Buffer.concat([frame(HEADERS, END_HEADERS, stream, method.block), body]);
    const answered = await new Promise<boolean>((done, failed) => {
      this.#calls.set(stream, { answered: false, done, failed });
      this.#blocked.push({ bytes, size: message.length + 5 });
      this.#flush();
    });
    if (!answered) throw new Error("a call was refused");
  }

  close(): void {
    this.#socket.destroy();
  }

  #flush(): void {
    for (
      let next = this.#blocked[0];
      next !== undefined && next.size <= this.#window;
      next = this.#blocked[0]
    ) {
      this.#blocked.shift();
      this.#window -= next.size;
      this.#socket.write(next.bytes);
    }
  }

  #receive(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= 9) {
      const length = bytes.readUIntBE(0, 3);
      if (bytes.length < 9 + length) break;
      this.#frame(
        bytes.readUInt8(3),
        bytes.readUInt8(4),
        bytes.readUInt32BE(5),
        bytes.subarray(9, 9 + length),
      );
      bytes = bytes.subarray(9 + length);
    }
    this.#rest = bytes;
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === DATA || type === HEADERS) {
      const call = this.#calls.get(stream);
      if (call === undefined) return;
      if (type === DATA && payload.length > 0) call.answered = true;
      if ((flags & END_STREAM) === 0) return;
      this.#calls.delete(stream);
      call.done(call.answered);
    } else if (type === SETTINGS && (flags & ACK) === 0) {
      this.#socket.write(frame(SETTINGS, ACK, 0, Buffer.alloc(0)));
    } else if (type === PING && (flags & ACK) === 0) {
      this.#socket.write(frame(PING, ACK, 0, payload));
    } else if (type === WINDOW_UPDATE && stream === 0) {
      this.#window += payload.readUInt32BE(0);
      this.#flush();
    } else if (type === GOAWAY) {
      this.#end(new Error("the daemon said GOAWAY"));
    }
  }

  #end(error: Error): void {
    for (const call of this.#calls.values()) call.failed(error);
    this.#calls.clear();
  }
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, 9);
  return bytes;
}

/** Asks once with `body`, its prefix included, and counts bytes until `atLeastBytes` of frames have come; windows never end. */
export function downloadRaw(
  socketPath: string,
  path: string,
  namespace: string,
  body: Uint8Array,
  atLeastBytes: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    let received = 0;
    const socket = connect(socketPath);
    socket.once("error", reject);
    socket.once("close", () => reject(new Error(`the stream ended after ${received} bytes`)));
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received < atLeastBytes) return;
      resolve(received);
      socket.destroy();
    });
    const window = Buffer.alloc(6);
    window.writeUInt16BE(4, 0);
    window.writeUInt32BE(MAX_WINDOW, 2);
    const grow = Buffer.alloc(4);
    grow.writeUInt32BE(MAX_WINDOW - FIRST_WINDOW);
    const { block } = methodOf(path, namespace);
    socket.write(Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0, window)]));
    socket.write(Buffer.concat([frame(WINDOW_UPDATE, 0, 0, grow), frame(HEADERS, END_HEADERS, 1, block)]));
    socket.write(frame(DATA, END_STREAM, 1, Buffer.from(body)));
  });
}
