/** Share of the window that must come in a round trip, and what it grows by: grpc-go's `bdp_estimator.go`. */
const FULL_SHARE = 2 / 3;
const GROWTH = 2;

/** What the best rate loses a sample: one that was lucky must not forbid all growth. */
const DECAY = 0.9;

/**
 * Estimates the bandwidth-delay product of a connection by the bytes that come between a PING and its acknowledgement: where they
 * fill the window, about as fast as ever, the window was what held the peer back.
 */
export class BandwidthEstimator {
  #sampleBytes = 0;
  #sentMs: number | undefined;
  #bestRate = 0;

  get sampling(): boolean {
    return this.#sentMs !== undefined;
  }

  received(bytes: number): void {
    this.#sampleBytes += bytes;
  }

  /** A PING leaves. */
  begin(nowMs: number): void {
    this.#sentMs = nowMs;
    this.#sampleBytes = 0;
  }

  /** Its acknowledgement has come: what the window should be, `windowBytes` as it is. */
  end(nowMs: number, windowBytes: number, maxBytes: number): number {
    if (this.#sentMs === undefined) return windowBytes;
    const elapsedMs = Math.max(nowMs - this.#sentMs, 0.001);
    this.#sentMs = undefined;
    const rate = this.#sampleBytes / elapsedMs;
    this.#bestRate = Math.max(rate, this.#bestRate * DECAY);
    if (rate < this.#bestRate || this.#sampleBytes < windowBytes * FULL_SHARE) return windowBytes;
    return Math.min(maxBytes, Math.max(windowBytes, this.#sampleBytes * GROWTH));
  }
}
