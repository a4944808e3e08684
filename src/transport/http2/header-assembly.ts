import { ConnectionError, ErrorCode } from "./errors.ts";
import { Flag, MAX_STREAM_ID, uint32At } from "./frames.ts";
import type { Http2Limits } from "./limits.ts";

const PRIORITY_BYTES = 5;

/** Puts header blocks together from HEADERS and CONTINUATION (RFC 9113 sections 6.2 and 6.10). */
export class HeaderAssembly {
  readonly #limits: Http2Limits;
  readonly #fragments: Buffer[] = [];
  #bytes = 0;
  #continuations = 0;
  #streamId = 0;
  #endStream = false;
  #selfDependent = false;

  constructor(limits: Http2Limits) {
    this.#limits = limits;
  }

  /** The stream whose CONTINUATION must come next, 0 if none must. */
  awaited = 0;

  /** The stream of the block that was completed last. */
  get streamId(): number {
    return this.#streamId;
  }

  get endStream(): boolean {
    return this.#endStream;
  }

  /** Section 5.3.1 of RFC 7540: a stream that says it depends on itself. */
  get selfDependent(): boolean {
    return this.#selfDependent;
  }

  /** Takes a HEADERS frame; answers the block if it is whole. @throws ConnectionError */
  headers(flags: number, streamId: number, payload: Buffer): Buffer | undefined {
    let from = 0;
    let to = payload.length;
    if ((flags & Flag.padded) !== 0) {
      to -= payload[0] ?? 0;
      from = 1;
    }
    this.#selfDependent = false;
    if ((flags & Flag.priority) !== 0) {
      if (payload.length < from + PRIORITY_BYTES) {
        throw new ConnectionError(ErrorCode.frameSizeError, "HEADERS frame is shorter than its priority");
      }
      this.#selfDependent = (uint32At(payload, from) & MAX_STREAM_ID) === streamId;
      from += PRIORITY_BYTES;
    }
    if (from > to)
      throw new ConnectionError(ErrorCode.protocolError, "padding is longer than its HEADERS frame");
    this.#streamId = streamId;
    this.#endStream = (flags & Flag.endStream) !== 0;
    const fragment = payload.subarray(from, to);
    if ((flags & Flag.endHeaders) !== 0) return fragment;
    this.awaited = streamId;
    this.#bytes = 0;
    this.#continuations = 0;
    this.#add(fragment);
    return undefined;
  }

  /** Takes a CONTINUATION frame of the awaited stream; answers the block if it is whole. @throws ConnectionError */
  continuation(flags: number, payload: Buffer): Buffer | undefined {
    this.#continuations += 1;
    if (this.#continuations > this.#limits.maxContinuations) {
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "too many CONTINUATION frames");
    }
    this.#add(payload);
    if ((flags & Flag.endHeaders) === 0) return undefined;
    this.awaited = 0;
    const block = Buffer.concat(this.#fragments);
    this.#fragments.length = 0;
    return block;
  }

  #add(fragment: Buffer): void {
    this.#bytes += fragment.length;
    if (this.#bytes > this.#limits.maxHeaderBlockBytes) {
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "header block is too large");
    }
    if (fragment.length > 0) this.#fragments.push(fragment);
  }
}
