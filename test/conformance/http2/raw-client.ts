/** A client of single frames: what no library would send, and every frame that comes back. Shares no code with the engine. */
import { connect, type Socket } from "node:net";

export const T = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const;

export const F = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const E = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const;

export const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, id: number, payload: Uint8Array | string = ""): Buffer {
  const body = Buffer.from(payload as string);
  const head = Buffer.alloc(9);
  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, body]);
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, at * 4);
  return bytes;
}

export function settings(entries: readonly (readonly [number, number])[]): Buffer {
  return Buffer.concat(
    entries.map(([id, value]) => {
      const bytes = Buffer.alloc(6);
      bytes.writeUInt16BE(id, 0);
      bytes.writeUInt32BE(value, 2);
      return bytes;
    }),
  );
}

/** RFC 7541 section 6.2.2, new name, no Huffman code: the plainest way to write fields. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value, "latin1");
    return Buffer.concat([integer(0, 7, bytes.length), bytes]);
  };
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

/** RFC 7541 section 5.1. */
export function integer(pattern: number, prefixBits: number, value: number): Buffer {
  const mask = 2 ** prefixBits - 1;
  if (value < mask) return Buffer.from([pattern | value]);
  const bytes = [pattern | mask];
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push(128 + (rest % 128));
  return Buffer.from([...bytes, rest]);
}

export const REQUEST: readonly (readonly [string, string])[] = [
  [":method", "POST"],
  [":scheme", "http"],
  [":path", "/"],
  [":authority", "localhost"],
];

/** A request that the server under test answers as its path says: see `server.ts`. */
export function request(path: string, more: readonly (readonly [string, string])[] = []): Buffer {
  return block([
    ...REQUEST.map(([name, value]) => [name, name === ":path" ? path : value] as const),
    ...more,
  ]);
}

export function grpcRequest(path: string, more: readonly (readonly [string, string])[] = []): Buffer {
  return request(path, [["content-type", "application/grpc"], ["te", "trailers"], ...more]);
}

/** How long a frame may take that must come: a hang fails here and not in the runner. */
const PATIENCE_MS = 20_000;

export class RawClient implements AsyncDisposable {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  readonly #frames: Frame[] = [];
  #closed = false;
  #wake: (() => void) | undefined;

  /** Connects and sends nothing. */
  static bare(path: string): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new RawClient(socket)));
      socket.once("error", reject);
    });
  }

  /** Connects and exchanges SETTINGS. */
  static async open(path: string, own: readonly (readonly [number, number])[] = []): Promise<RawClient> {
    const client = await RawClient.bare(path);
    client.send(PREFACE, frame(T.settings, 0, 0, settings(own)));
    await client.until((got) => got.type === T.settings && got.flags === F.ack);
    client.send(frame(T.settings, F.ack, 0));
    return client;
  }

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#cut();
      this.#notify();
    });
    const closed = (): void => {
      this.#closed = true;
      this.#notify();
    };
    socket.on("end", closed);
    socket.on("close", closed);
    socket.on("error", closed);
  }

  send(...parts: readonly (Uint8Array | string)[]): void {
    this.#socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as string))));
  }

  frame(type: number, flags: number, id: number, payload: Uint8Array | string = ""): void {
    this.send(frame(type, flags, id, payload));
  }

  /** HEADERS with END_HEADERS. */
  headers(id: number, payload: Buffer, flags = 0): void {
    this.frame(T.headers, flags | F.endHeaders, id, payload);
  }

  /** Reads nothing more until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Sends our FIN. */
  end(): void {
    this.#socket.end();
  }

  /** The next frame, or undefined when the server has closed. */
  async next(): Promise<Frame | undefined> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const first = this.#frames.shift();
      if (first !== undefined || this.#closed) return first;
      if (Date.now() > deadline) throw new Error("no frame came");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, PATIENCE_MS).unref();
      });
    }
  }

  /** Drops frames up to the first that `matches`. */
  async until(matches: (got: Frame) => boolean): Promise<Frame> {
    const passed: string[] = [];
    for (;;) {
      const got = await this.next();
      if (got === undefined) throw new Error(`closed, after ${passed.join(" ") || "nothing"}`);
      if (matches(got)) return got;
      passed.push(describe(got));
    }
  }

  /** Frames of one stream up to END_STREAM, RST_STREAM or the end of the connection. */
  async answer(id: number): Promise<Frame[]> {
    const frames: Frame[] = [];
    for (;;) {
      const got = await this.next();
      if (got === undefined) return frames;
      if (got.type === T.goaway)
        throw new Error(`GOAWAY ${got.payload.readUInt32BE(4)} ${got.payload.subarray(8)}`);
      if (got.id !== id || got.type === T.window) continue;
      frames.push(got);
      const ends = (got.type === T.data || got.type === T.headers) && (got.flags & F.endStream) !== 0;
      if (ends || got.type === T.reset) return frames;
    }
  }

  /** Everything that the server says before the acknowledgement of a PING: what came before it has been handled then. */
  async settle(): Promise<Frame[]> {
    const mark = Buffer.from(`mark${Math.floor(Math.random() * 9000) + 1000}`);
    this.frame(T.ping, 0, 0, mark);
    const frames: Frame[] = [];
    for (;;) {
      const got = await this.next();
      if (got === undefined) throw new Error(`closed, after ${frames.map(describe).join(" ") || "nothing"}`);
      if (got.type === T.ping && got.flags === F.ack && got.payload.equals(mark)) return frames;
      frames.push(got);
    }
  }

  /** The code of the GOAWAY that ends the connection, and the connection ends. */
  async connectionError(): Promise<{ code: number; message: string }> {
    const goaway = await this.until((got) => got.type === T.goaway);
    while ((await this.next()) !== undefined);
    return { code: goaway.payload.readUInt32BE(4), message: goaway.payload.toString("latin1", 8) };
  }

  /** The code of the RST_STREAM of stream `id`; the connection lives on. */
  async streamError(id: number): Promise<number> {
    const reset = await this.until((got) => got.type === T.reset || got.type === T.goaway);
    if (reset.type === T.goaway)
      throw new Error(`GOAWAY ${reset.payload.readUInt32BE(4)} ${reset.payload.subarray(8)}`);
    if (reset.id !== id) throw new Error(`reset of stream ${reset.id}`);
    await this.settle();
    return reset.payload.readUInt32BE(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    while (!this.#closed) await new Promise(setImmediate);
  }

  #cut(): void {
    while (this.#received.length >= 9) {
      const length = this.#received.readUIntBE(0, 3);
      if (this.#received.length < 9 + length) return;
      this.#frames.push({
        type: this.#received.readUInt8(3),
        flags: this.#received.readUInt8(4),
        id: this.#received.readUInt32BE(5),
        payload: Buffer.from(this.#received.subarray(9, 9 + length)),
      });
      this.#received = this.#received.subarray(9 + length);
    }
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

export function describe({ type, flags, id, payload }: Frame): string {
  const name = Object.keys(T)[type] ?? `type ${type}`;
  return `${name}(${id}, flags ${flags}, ${payload.length} bytes)`;
}

/** The bytes of a stream's DATA frames. */
export function bodyOf(frames: readonly Frame[]): Buffer {
  return Buffer.concat(frames.filter((got) => got.type === T.data).map((got) => got.payload));
}

/** Windows that nothing here fills. */
export function openWindows(client: RawClient): void {
  client.frame(T.window, 0, 0, u32(2 ** 30));
  client.frame(T.settings, 0, 0, settings([[4, 2 ** 30]]));
}
