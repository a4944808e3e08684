/** WebSocket frames, as a server receives and sends them (RFC 6455, section 5). */

export const Opcode = {
  Continuation: 0,
  Text: 1,
  Binary: 2,
  Close: 8,
  Ping: 9,
  Pong: 10,
} as const;
export type Opcode = (typeof Opcode)[keyof typeof Opcode];

export const CLOSE_NORMAL = 1000;
export const CLOSE_PROTOCOL_ERROR = 1002;
export const CLOSE_TOO_BIG = 1009;

const OPCODES: readonly Opcode[] = Object.values(Opcode);
const FINAL = 0x80;
const RESERVED = 0x70;
const MASKED = 0x80;
const MASK_BYTES = 4;
const MAX_CONTROL_BYTES = 125;
const MAX_HEAD_BYTES = 14;

/** The client breaks the protocol. */
export class WebSocketError extends Error {
  override readonly name = "WebSocketError";
}

export interface MessageHandler {
  /** A part of a data message, as it comes. */
  part(bytes: Uint8Array, first: boolean, last: boolean): void;
  control(opcode: Opcode, payload: Uint8Array): void;
}

/** Cuts what a client sends into parts of messages. Holds at most one control frame. */
export class MessageReader {
  readonly #handler: MessageHandler;
  #held: Buffer = Buffer.alloc(0);
  /** Of the data frame that is coming. */
  #left = 0;
  #final = false;
  #mask: Buffer = Buffer.alloc(MASK_BYTES);
  #maskAt = 0;
  /** Within a data message: its first part has been told, or not. */
  #message: "none" | "begun" | "told" = "none";

  constructor(handler: MessageHandler) {
    this.#handler = handler;
  }

  /** @throws WebSocketError */
  push(chunk: Uint8Array): void {
    let rest = Buffer.concat([this.#held, chunk]);
    this.#held = Buffer.alloc(0);
    for (;;) {
      if (this.#left > 0) {
        if (rest.length === 0) return;
        const part = rest.subarray(0, this.#left);
        this.#unmask(part);
        this.#left -= part.length;
        rest = rest.subarray(part.length);
        this.#tell(part);
        continue;
      }
      const taken = this.#frame(rest);
      if (taken === 0) break;
      rest = rest.subarray(taken);
    }
    this.#held = Buffer.from(rest);
  }

  #tell(part: Uint8Array): void {
    const first = this.#message === "begun";
    const last = this.#final && this.#left === 0;
    this.#message = last ? "none" : "told";
    this.#handler.part(part, first, last);
  }

  /** How many bytes a data frame's head, or a whole control frame, has taken; 0 if it has not come whole. */
  #frame(bytes: Buffer): number {
    const head = headOf(bytes);
    if (head === undefined) return 0;
    const { opcode, final, size, headBytes } = head;
    if (opcode >= Opcode.Close) {
      if (!final || size > MAX_CONTROL_BYTES)
        throw new WebSocketError("control frame is fragmented or too long");
      if (bytes.length < headBytes + size) return 0;
      this.#setMask(bytes, headBytes);
      const payload = Buffer.from(bytes.subarray(headBytes, headBytes + size));
      this.#unmask(payload);
      this.#handler.control(opcode, payload);
      return headBytes + size;
    }
    const continues = opcode === Opcode.Continuation;
    if (continues !== (this.#message !== "none")) throw new WebSocketError("fragments are out of order");
    this.#setMask(bytes, headBytes);
    if (!continues) this.#message = "begun";
    this.#final = final;
    this.#left = size;
    if (size === 0) this.#tell(new Uint8Array(0));
    return headBytes;
  }

  #setMask(bytes: Buffer, headBytes: number): void {
    this.#mask = Buffer.from(bytes.subarray(headBytes - MASK_BYTES, headBytes));
    this.#maskAt = 0;
  }

  #unmask(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at++)
      bytes[at] = (bytes[at] ?? 0) ^ (this.#mask[(this.#maskAt + at) % MASK_BYTES] ?? 0);
    this.#maskAt += bytes.length;
  }
}

interface FrameHead {
  readonly opcode: Opcode;
  readonly final: boolean;
  readonly size: number;
  /** With the mask. */
  readonly headBytes: number;
}

/** @throws WebSocketError */
function headOf(bytes: Buffer): FrameHead | undefined {
  if (bytes.length < 2) return undefined;
  const [first = 0, second = 0] = bytes;
  const opcode = OPCODES.find((known) => known === (first & 0x0f));
  if ((first & RESERVED) !== 0 || opcode === undefined)
    throw new WebSocketError("frame of an extension that was not agreed on");
  if ((second & MASKED) === 0) throw new WebSocketError("frame of a client is not masked");
  const short = second & 0x7f;
  const lengthBytes = short === 127 ? 8 : short === 126 ? 2 : 0;
  const headBytes = 2 + lengthBytes + MASK_BYTES;
  if (bytes.length < headBytes) return undefined;
  let size = short;
  if (lengthBytes === 2) size = bytes.readUInt16BE(2);
  if (lengthBytes === 8) {
    const long = bytes.readBigUInt64BE(2);
    if (long > BigInt(Number.MAX_SAFE_INTEGER)) throw new WebSocketError("frame is too long");
    size = Number(long);
  }
  return { opcode, final: (first & FINAL) !== 0, size, headBytes };
}

/** One frame, which is one message; not masked. */
export function messageFrame(opcode: Opcode, ...parts: readonly Uint8Array[]): Buffer {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const head = Buffer.alloc(MAX_HEAD_BYTES);
  head[0] = FINAL | opcode;
  let headBytes = 2;
  if (size < 126) head[1] = size;
  else if (size < 1 << 16) {
    head[1] = 126;
    head.writeUInt16BE(size, 2);
    headBytes = 4;
  } else {
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(size), 2);
    headBytes = 10;
  }
  return Buffer.concat([head.subarray(0, headBytes), ...parts]);
}
