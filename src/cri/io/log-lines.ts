const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const NANOSECONDS_PER_SECOND = 1_000_000_000n;
/** What a line may have at most where the configuration sets no limit: whoever writes without newlines must not fill our memory. */
const MAX_UNLIMITED_BYTES = 16 << 20;
/** A rest of a chunk up to this size is copied, so that it does not keep the whole chunk in memory. */
const MAX_COPIED_BYTES = 16 << 10;

/** A piece of a line in the data: `[start, end)`. */
interface Piece {
  readonly start: number;
  readonly end: number;
  readonly full: boolean;
}

/**
 * One output of a container as lines of the CRI log format: `<time> <stream> F <line>`; a line longer than the limit comes in pieces, all
 * but the last tagged `P`; what has no newline at the end of the output is `P`. A carriage return before the newline is dropped.
 * Times are in UTC with nine digits. Source: containerd `internal/cri/io/logger.go`; kubelet `pkg/kubelet/kuberuntime/logs`.
 */
export class LogLines {
  readonly #stream: "stdout" | "stderr";
  readonly #maxBytes: number;
  #rest: Uint8Array[] = [];
  #restBytes = 0;

  /** @param maxLineBytes of a line's content; no limit (but 16 MiB) if it is not positive */
  constructor(stream: "stdout" | "stderr", maxLineBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxLineBytes > 0 ? maxLineBytes : MAX_UNLIMITED_BYTES;
  }

  /** What can be written of the output so far. */
  add(chunk: Uint8Array, nanoseconds: bigint): Uint8Array {
    const data = this.#take(chunk);
    if (data === undefined) return new Uint8Array(0);
    const pieces: Piece[] = [];
    let start = 0;
    for (let newline = data.indexOf(NEWLINE); newline >= 0; newline = data.indexOf(NEWLINE, start)) {
      const end = newline > start && data[newline - 1] === CARRIAGE_RETURN ? newline - 1 : newline;
      start = this.#cut(pieces, start, end);
      pieces.push({ start, end, full: true });
      start = newline + 1;
    }
    // A carriage return at the end may belong to a newline to come.
    const end = data[data.length - 1] === CARRIAGE_RETURN ? data.length - 1 : data.length;
    this.#keep(data.subarray(this.#cut(pieces, start, end)));
    return this.#write(data, pieces, nanoseconds);
  }

  /** The rest, at the end of the output. */
  finish(nanoseconds: bigint): Uint8Array {
    const data = Buffer.concat(this.#rest);
    this.#rest = [];
    this.#restBytes = 0;
    if (data.length === 0) return data;
    const pieces: Piece[] = [];
    const start = this.#cut(pieces, 0, data.length);
    pieces.push({ start, end: data.length, full: false });
    return this.#write(data, pieces, nanoseconds);
  }

  /** The rest and the chunk together; undefined if that is only more of a line that is not too long yet. */
  #take(chunk: Uint8Array): Uint8Array | undefined {
    if (this.#restBytes === 0) return chunk;
    if (this.#restBytes + chunk.length <= this.#maxBytes && !chunk.includes(NEWLINE)) {
      this.#keep(chunk);
      return undefined;
    }
    const data = Buffer.concat([...this.#rest, chunk]);
    this.#rest = [];
    this.#restBytes = 0;
    return data;
  }

  #keep(rest: Uint8Array): void {
    if (rest.length === 0) return;
    this.#rest.push(rest.length > MAX_COPIED_BYTES ? rest : new Uint8Array(rest));
    this.#restBytes += rest.length;
  }

  /** Partial pieces while more than the limit is left; where the last begins. */
  #cut(pieces: Piece[], from: number, end: number): number {
    let start = from;
    for (; end - start > this.#maxBytes; start += this.#maxBytes)
      pieces.push({ start, end: start + this.#maxBytes, full: false });
    return start;
  }

  #write(data: Uint8Array, pieces: readonly Piece[], nanoseconds: bigint): Uint8Array {
    if (pieces.length === 0) return new Uint8Array(0);
    const prefix = `${logTime(nanoseconds)} ${this.#stream}`;
    const [full, partial] = [Buffer.from(`${prefix} F `), Buffer.from(`${prefix} P `)];
    let size = 0;
    for (const { start, end } of pieces) size += full.length + end - start + 1;
    const written = Buffer.allocUnsafe(size);
    let at = 0;
    for (const piece of pieces) {
      written.set(piece.full ? full : partial, at);
      at += full.length;
      written.set(data.subarray(piece.start, piece.end), at);
      at += piece.end - piece.start;
      written[at++] = NEWLINE;
    }
    return written;
  }
}

function logTime(nanoseconds: bigint): string {
  const fraction = nanoseconds % NANOSECONDS_PER_SECOND;
  const seconds = Number((nanoseconds - fraction) / NANOSECONDS_PER_SECOND);
  const whole = new Date(seconds * 1000).toISOString().slice(0, -".000Z".length);
  return `${whole}.${String(fraction).padStart(9, "0")}Z`;
}
