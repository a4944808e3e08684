import type { Http2Limits } from "./limits.ts";

/**
 * How often a client may ask whether we live: grpc-go's keep-alive enforcement (`internal/transport/http2_server.go`, `handlePing`). A
 * ping behind something that we sent is free, as bandwidth estimation needs them; others must keep their distance.
 */
export class PingPolicy {
  readonly #limits: Http2Limits;
  #lastMs = Number.NEGATIVE_INFINITY;
  #strikes = 0;
  /** HEADERS or DATA left since the last ping. */
  #sent = false;

  constructor(limits: Http2Limits) {
    this.#limits = limits;
  }

  sent(): void {
    this.#sent = true;
  }

  /** False if the connection must end with "too_many_pings". */
  allow(nowMs: number, openStreams: number): boolean {
    const { minPingIntervalMs, minIdlePingIntervalMs, maxPingStrikes } = this.#limits;
    const earliestMs = this.#lastMs + (openStreams === 0 ? minIdlePingIntervalMs : minPingIntervalMs);
    this.#lastMs = nowMs;
    if (this.#sent) {
      this.#sent = false;
      this.#strikes = 0;
    } else if (earliestMs > nowMs) {
      this.#strikes += 1;
    }
    return this.#strikes <= maxPingStrikes;
  }
}
