import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { encodeAny } from "./any-bytes.ts";
import { type GoTime, ZERO_TIME_SECONDS } from "./go-time.ts";

/** A label or an extension: the key as UTF-8, the value a label's UTF-8 or an extension's Any bytes. */
export type RecordEntry = readonly [key: Uint8Array, value: Uint8Array];

/**
 * A container's fields as the database holds them, so that a change of one decodes none of the others: texts are UTF-8, spec, options
 * and extensions the bytes of an Any. The arrays may be views of a page or of a request: never changed.
 */
export interface ContainerRecord {
  id: string;
  /** Of a request also those whose value is empty, which are not stored. No key twice. */
  labels: readonly RecordEntry[];
  image: Uint8Array;
  runtimeName: Uint8Array;
  runtimeOptions: Uint8Array | undefined;
  spec: Uint8Array | undefined;
  snapshotter: Uint8Array;
  snapshotKey: Uint8Array;
  /** Both are the database's, whatever a request says. */
  createdAt: GoTime;
  updatedAt: GoTime;
  /** No key twice. */
  extensions: readonly RecordEntry[];
  sandbox: Uint8Array;
}

const NEVER: GoTime = { seconds: ZERO_TIME_SECONDS, nanos: 0 };
const EMPTY: Uint8Array = new Uint8Array(0);
const NO_ENTRIES: readonly RecordEntry[] = [];

/** The record of a message. */
export function recordOf(container: Container): ContainerRecord {
  const { id, labels, runtime, spec, extensions } = container;
  return {
    id,
    labels: Object.entries(labels).map(([key, value]) => [Buffer.from(key), Buffer.from(value)]),
    image: Buffer.from(container.image),
    runtimeName: Buffer.from(runtime?.name ?? ""),
    runtimeOptions: runtime?.options && encodeAny(runtime.options),
    spec: spec && encodeAny(spec),
    snapshotter: Buffer.from(container.snapshotter),
    snapshotKey: Buffer.from(container.snapshotKey),
    createdAt: NEVER,
    updatedAt: NEVER,
    extensions: Object.entries(extensions).map(([name, any]) => [Buffer.from(name), encodeAny(any)]),
    sandbox: Buffer.from(container.sandbox),
  };
}

/** More labels or extensions than this are the message's to compare. */
const MAX_ENTRIES = 64;
const LENGTH_DELIMITED = 2;

/**
 * The record in the bytes of a Container as clients commonly write them: fields once and length-delimited, texts ASCII, Any messages in
 * the order of their fields. Undefined for everything else, malformed or not: that is protobuf's to decode.
 */
export function recordOfWire(bytes: Uint8Array): ContainerRecord | undefined {
  return new RecordReader(bytes).read();
}

/** Reads one message front to back; whatever is uncommon makes `#odd` true and ends it. */
class RecordReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #odd = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  read(): ContainerRecord | undefined {
    const record: ContainerRecord = {
      id: "",
      labels: NO_ENTRIES,
      image: EMPTY,
      runtimeName: EMPTY,
      runtimeOptions: undefined,
      spec: undefined,
      snapshotter: EMPTY,
      snapshotKey: EMPTY,
      createdAt: NEVER,
      updatedAt: NEVER,
      extensions: NO_ENTRIES,
      sandbox: EMPTY,
    };
    const labels: RecordEntry[] = [];
    const extensions: RecordEntry[] = [];
    let seen = 0;
    while (this.#at < this.#bytes.length && !this.#odd) {
      const tag = this.#bytes[this.#at++] ?? 0;
      const field = tag >> 3;
      const end = this.#length();
      if ((tag & 7) !== LENGTH_DELIMITED || tag >= 0x80) this.#odd = true;
      else if (field === 2) this.#entry(labels, end, false);
      else if (field === 10) this.#entry(extensions, end, true);
      else if ((seen & (1 << field)) !== 0) this.#odd = true;
      else this.#field(record, field, end);
      seen |= 1 << field;
    }
    if (this.#odd) return undefined;
    record.labels = labels;
    record.extensions = extensions;
    return record;
  }

  #field(record: ContainerRecord, field: number, end: number): void {
    if (field === 1) {
      const id = this.#text(end);
      record.id = latin1Slice.call(id, 0, id.length);
    } else if (field === 3) record.image = this.#text(end);
    else if (field === 4) this.#runtime(record, end);
    else if (field === 5) record.spec = this.#any(end);
    else if (field === 6) record.snapshotter = this.#text(end);
    else if (field === 7) record.snapshotKey = this.#text(end);
    else if (field === 11) record.sandbox = this.#text(end);
    else this.#odd = true;
  }

  /** The end of a value whose length stands here; a length that does not fit is odd. */
  #length(): number {
    let length = 0;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#bytes[this.#at++] ?? 0;
      length |= (byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      if (this.#at + length > this.#bytes.length) break;
      return this.#at + length;
    }
    this.#odd = true;
    return this.#at;
  }

  #text(end: number): Uint8Array {
    const start = this.#at;
    for (let at = start; at < end; at++) if ((this.#bytes[at] ?? 0) >= 0x80) this.#odd = true;
    this.#at = end;
    return start === end ? EMPTY : this.#bytes.subarray(start, end);
  }

  /** The end of field `number` if it is the next before `end`. */
  #next(number: number, end: number): number | undefined {
    if (this.#at >= end || this.#bytes[this.#at] !== ((number << 3) | LENGTH_DELIMITED)) return undefined;
    this.#at += 1;
    const valueEnd = this.#length();
    if (valueEnd > end) this.#odd = true;
    return valueEnd;
  }

  #close(end: number): void {
    if (this.#at !== end) this.#odd = true;
    this.#at = end;
  }

  #any(end: number): Uint8Array {
    const start = this.#at;
    for (const number of [1, 2]) {
      const valueEnd = this.#next(number, end);
      if (valueEnd === undefined) continue;
      // Empty ones are not written.
      if (valueEnd === this.#at) this.#odd = true;
      if (number === 1) this.#text(valueEnd);
      this.#at = valueEnd;
    }
    this.#close(end);
    return this.#bytes.subarray(start, end);
  }

  #runtime(record: ContainerRecord, end: number): void {
    const nameEnd = this.#next(1, end);
    if (nameEnd !== undefined) record.runtimeName = this.#text(nameEnd);
    const optionsEnd = this.#next(2, end);
    if (optionsEnd !== undefined) record.runtimeOptions = this.#any(optionsEnd);
    this.#close(end);
  }

  #entry(entries: RecordEntry[], end: number, any: boolean): void {
    const keyEnd = this.#next(1, end);
    const key = keyEnd === undefined ? EMPTY : this.#text(keyEnd);
    const valueEnd = this.#next(2, end);
    const value = valueEnd === undefined ? EMPTY : any ? this.#any(valueEnd) : this.#text(valueEnd);
    this.#close(end);
    if (entries.length >= MAX_ENTRIES || entries.some(([known]) => isEqual(known, key))) this.#odd = true;
    entries.push([key, value]);
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

const { latin1Slice } = Buffer.prototype;
