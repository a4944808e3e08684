/** How a stream ended, as far as it decides what a later frame on it means (RFC 9113 section 5.1, "closed"). */
export const Ending = {
  /** By END_STREAM of both sides: more frames are an error of the connection. */
  ended: 1,
  /** Reset by the peer: more frames are an error of the stream. */
  resetByPeer: 5,
  /** Reset by us: the peer may not know yet, so its frames are let pass. */
  resetByUs: 2,
  /** Never opened: a stream with a higher number was (section 5.1.1). */
  skipped: 3,
  /** Too long ago to know. */
  forgotten: 4,
} as const;

export type Ending = (typeof Ending)[keyof typeof Ending];

/** How many ended streams a connection remembers. */
const REMEMBERED = 256;

/** The streams of a connection that ended last. */
export class ClosedStreams {
  #ids: Int32Array | undefined;
  #endings = new Uint8Array(0);
  #count = 0;

  add(id: number, ending: Ending): void {
    this.#ids ??= new Int32Array(REMEMBERED);
    if (this.#endings.length === 0) this.#endings = new Uint8Array(REMEMBERED);
    const at = this.#count % REMEMBERED;
    this.#ids[at] = id;
    this.#endings[at] = ending;
    this.#count += 1;
  }

  /** Changes how a stream is remembered, or remembers it. */
  mark(id: number, ending: Ending): void {
    const at = this.#ids?.lastIndexOf(id) ?? -1;
    if (at < 0) this.add(id, ending);
    else this.#endings[at] = ending;
  }

  /** For an `id` that is neither open nor higher than all that were. */
  endingOf(id: number): Ending {
    const at = this.#ids?.lastIndexOf(id) ?? -1;
    if (at >= 0) return (this.#endings[at] ?? Ending.forgotten) as Ending;
    return this.#count <= REMEMBERED ? Ending.skipped : Ending.forgotten;
  }
}
