/** ttrpc by hand: frames read and written without the product's code, as `PROTOCOL.md` has them. */
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { RequestSchema, type Response, ResponseSchema } from "#gen/ttrpc/request_pb.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

export interface Frame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly data: Buffer;
}

export const [REQUEST, RESPONSE, DATA] = [1, 2, 3];
export const [REMOTE_CLOSED, REMOTE_OPEN, NO_DATA] = [1, 2, 4];

export function frameBytes(
  streamId: number,
  type: number,
  flags: number,
  data: Uint8Array,
  length = data.length,
) {
  const head = Buffer.alloc(10);
  head.writeUInt32BE(length, 0);
  head.writeUInt32BE(streamId, 4);
  head.writeUInt8(type, 8);
  head.writeUInt8(flags, 9);
  return Buffer.concat([head, data]);
}

export function request(init: MessageInitShape<typeof RequestSchema>): Uint8Array {
  return toBinary(RequestSchema, create(RequestSchema, init));
}

export function response(init: MessageInitShape<typeof ResponseSchema>): Uint8Array {
  return toBinary(ResponseSchema, create(ResponseSchema, init));
}

export function readResponse(frame: Frame): Response {
  if (frame.type !== RESPONSE) throw new Error(`frame ${frame.type} is no response`);
  return fromBinary(ResponseSchema, frame.data);
}

/** The code and message of a response. */
export function statusOf(frame: Frame): string {
  const { status } = readResponse(frame);
  return status === undefined ? "OK" : `${status.code} ${status.message}`;
}

/** One end of a connection. */
export class Wire implements Disposable {
  readonly socket: Socket;
  /** Resolves when the other end has closed. */
  readonly closed: Promise<void>;
  #bytes = Buffer.alloc(0);
  #waiter: (() => void) | undefined;
  #ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#ended = true;
        this.#waiter?.();
        resolve();
      });
    });
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#waiter?.();
    });
  }

  send(streamId: number, type: number, flags: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.socket.write(frameBytes(streamId, type, flags, data));
  }

  /** The next frame. @throws if the connection ends before */
  async next(): Promise<Frame> {
    for (;;) {
      const length = this.#bytes.length < 10 ? Number.POSITIVE_INFINITY : 10 + this.#bytes.readUInt32BE(0);
      if (this.#bytes.length >= length) {
        const bytes = this.#bytes.subarray(0, length);
        this.#bytes = this.#bytes.subarray(length);
        const [streamId, type, flags] = [bytes.readUInt32BE(4), bytes.readUInt8(8), bytes.readUInt8(9)];
        return { streamId, type, flags, data: bytes.subarray(10) };
      }
      if (this.#ended) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        this.#waiter = resolve;
      });
    }
  }

  /** The next frame, a request. */
  async nextRequest() {
    const frame = await this.next();
    if (frame.type !== REQUEST) throw new Error(`frame ${frame.type} is no request`);
    return { ...frame, request: fromBinary(RequestSchema, frame.data) };
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

export async function connectWire(path: string): Promise<Wire> {
  const socket = connect({ path });
  const wire = new Wire(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return wire;
}

export interface PlayedServer extends AsyncDisposable {
  readonly path: string;
  /** The next connection. */
  accept(): Promise<Wire>;
}

/** A server that the test plays, at a path of its own or at an abstract name. */
export async function playServer(name?: string): Promise<PlayedServer> {
  const folder = temporaryFolder();
  const path = name ?? join(folder, "p.sock");
  const wires: Wire[] = [];
  const waiters: ((wire: Wire) => void)[] = [];
  const server = createServer((socket) => {
    const wire = new Wire(socket);
    const waiter = waiters.shift();
    if (waiter === undefined) wires.push(wire);
    else waiter(wire);
  });
  await new Promise<void>((resolve) => server.listen({ path }, resolve));
  const all: Wire[] = [];
  return {
    path,
    async accept() {
      const wire = wires.shift() ?? (await new Promise<Wire>((resolve) => waiters.push(resolve)));
      all.push(wire);
      return wire;
    },
    async [Symbol.asyncDispose]() {
      for (const wire of all) wire.socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      removeFolder(folder);
    },
  };
}
