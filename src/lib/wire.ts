/** Protobuf's wire format by hand, for messages that are put together from bytes which are encoded already. */

const LENGTH_DELIMITED = 2;
const INITIAL_BYTES = 16_384;
/** A tag of one byte and the longest length of a message that fits into memory. */
const FRAME_BYTES = 1 + 5;

/** Bytes that a whole number of at most 53 bits takes as a varint; a negative one takes ten, as an int64 does. */
export function varintSize(value: number): number {
  if (value < 0) return 10;
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

export function varint64Size(value: bigint): number {
  return value <= Number.MAX_SAFE_INTEGER ? varintSize(Number(value)) : 4 + varintSize(Number(value >> 28n));
}

/** Bytes that a length-delimited field of `sizeBytes` takes, with tag and length; field numbers up to 15. */
export function fieldSize(sizeBytes: number): number {
  return 1 + varintSize(sizeBytes) + sizeBytes;
}

/** Writes one message after another into the same memory. Field numbers are 1 to 15. */
export class WireWriter {
  #buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES);
  #position = FRAME_BYTES;

  /** Begins a message; what was not taken is dropped. */
  begin(): void {
    this.#position = FRAME_BYTES;
  }

  /** The message as field `number` of an outer one, in memory of its own. */
  takeFramed(number: number): Uint8Array {
    const sizeBytes = this.#position - FRAME_BYTES;
    const start = FRAME_BYTES - 1 - varintSize(sizeBytes);
    const end = this.#position;
    this.#position = start;
    this.tag(number, LENGTH_DELIMITED);
    this.varint(sizeBytes);
    return new Uint8Array(this.#buffer.subarray(start, end));
  }

  /** The message, where it lies: valid until the next one begins. */
  written(): Uint8Array {
    return this.#buffer.subarray(FRAME_BYTES, this.#position);
  }

  tag(number: number, type: number): void {
    this.#reserve(1);
    this.#buffer[this.#position++] = (number << 3) | type;
  }

  /** @param value a whole number of at most 53 bits; a negative one is written as an int64 */
  varint(value: number): void {
    if (value < 0) {
      this.#negative(BigInt(value));
      return;
    }
    this.#reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#position++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#position++] = rest;
  }

  /** A varint of up to 64 bits, not negative. */
  varint64(value: bigint): void {
    if (value <= Number.MAX_SAFE_INTEGER) {
      this.varint(Number(value));
      return;
    }
    let low = Number(value & 0xfff_ffffn);
    this.#reserve(4);
    for (let index = 0; index < 4; index++, low >>>= 7) {
      this.#buffer[this.#position++] = (low & 0x7f) | 0x80;
    }
    this.varint(Number(value >> 28n));
  }

  #negative(value: bigint): void {
    this.#reserve(10);
    for (let index = 0n; index < 9n; index++) {
      this.#buffer[this.#position++] = Number((value >> (7n * index)) & 0x7fn) | 0x80;
    }
    this.#buffer[this.#position++] = 1;
  }

  /** Tag and length of a field whose content follows. */
  header(number: number, sizeBytes: number): void {
    this.tag(number, LENGTH_DELIMITED);
    this.varint(sizeBytes);
  }

  /** A length-delimited field. */
  bytes(number: number, value: Uint8Array): void {
    this.header(number, value.length);
    this.raw(value);
  }

  raw(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#position);
    this.#position += value.length;
  }

  #reserve(sizeBytes: number): void {
    const needed = this.#position + sizeBytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    larger.set(this.#buffer.subarray(0, this.#position));
    this.#buffer = larger;
  }
}

/** Fields in a row: a message of them. */
export function joined(fields: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(fields.reduce((size, { length }) => size + length, 0));
  let at = 0;
  for (const field of fields) {
    whole.set(field, at);
    at += field.length;
  }
  return whole;
}

/** A field as it lies in a message: `content` is a view, empty unless the field is length-delimited. */
export interface WireField {
  readonly number: number;
  readonly content: Uint8Array;
  /** Where the next field begins. */
  readonly end: number;
}

/** The fields of a message in their order, or undefined from the first byte on that is no protobuf. */
export function* wireFields(message: Uint8Array): Generator<WireField | undefined, void> {
  for (let at = 0; at < message.length; ) {
    const tag = readVarint(message, at);
    if (tag === undefined || tag.value < 8) return yield undefined;
    const number = Math.floor(tag.value / 8);
    const end = endOfValue(message, tag.value % 8, tag.end);
    if (end === undefined) return yield undefined;
    yield { number, content: message.subarray(end.contentStart, end.end), end: end.end };
    at = end.end;
  }
}

/** True if `message` is a row of well-formed fields. */
export function isWireMessage(message: Uint8Array): boolean {
  for (const field of wireFields(message)) if (field === undefined) return false;
  return true;
}

function endOfValue(
  message: Uint8Array,
  type: number,
  at: number,
): { contentStart: number; end: number } | undefined {
  if (type === LENGTH_DELIMITED) {
    const length = readVarint(message, at);
    if (length === undefined || length.end + length.value > message.length) return undefined;
    return { contentStart: length.end, end: length.end + length.value };
  }
  const end =
    type === 0 ? readVarint(message, at)?.end : type === 1 ? at + 8 : type === 5 ? at + 4 : undefined;
  return end === undefined || end > message.length ? undefined : { contentStart: end, end };
}

/** Values beyond 2^53 lose their low bits, which only a varint field's value may have. */
function readVarint(bytes: Uint8Array, start: number): { value: number; end: number } | undefined {
  let value = 0;
  let scale = 1;
  for (let at = start; at < start + 10; at++) {
    const byte = bytes[at];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, end: at + 1 };
    scale *= 0x80;
  }
  return undefined;
}
