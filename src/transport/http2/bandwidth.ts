/** Time constants of grpc-go's estimator (`internal/transport/bdp_estimator.go`). */
const FULL_SHARE = 2 / 3;
const GROWTH = 2;
const ROUND_TRIP_SHARE = 1.5;

/**
 * Estimates the bandwidth-delay product of a connection by the bytes that come between a PING and its acknowledgement: where they
 * fill the window, and faster than ever, the window was what held the peer back.
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
    const rate = this.#sampleBytes / (elapsedMs * ROUND_TRIP_SHARE);
    const fastest = rate >= this.#bestRate;
    if (fastest) this.#bestRate = rate;
    if (!fastest || this.#sampleBytes < windowBytes * FULL_SHARE) return windowBytes;
    return Math.min(maxBytes, Math.max(windowBytes, this.#sampleBytes * GROWTH));
  }
}
