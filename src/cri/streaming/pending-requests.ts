import { createHash, randomBytes } from "node:crypto";
import { BunkerdError } from "../../model/errors.ts";

const LIFETIME_MS = 60_000;
const MAX_PENDING = 1000;
const TOKEN_BYTES = 18;

interface Pending<T> {
  readonly request: T;
  readonly expiresAtMs: number;
}

/**
 * Requests that wait for their client to come with the token: once, within a minute, at most 1000 of them (kubelet's
 * `request_cache.go`). Tokens have 144 random bits and are kept as hashes, so that the time of a look-up tells nothing of them.
 */
export class PendingRequests<T> {
  readonly #nowMs: () => number;
  /** By age. */
  readonly #pending = new Map<string, Pending<T>>();

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  /** The request's token. @throws ResourceExhausted */
  add(request: T): string {
    this.#expire();
    if (this.#pending.size >= MAX_PENDING)
      throw new BunkerdError("ResourceExhausted", "maximum number of in-flight requests exceeded");
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    this.#pending.set(hashOf(token), { request, expiresAtMs: this.#nowMs() + LIFETIME_MS });
    return token;
  }

  /** Its request, and never again. */
  take(token: string): T | undefined {
    this.#expire();
    const hash = hashOf(token);
    const found = this.#pending.get(hash);
    this.#pending.delete(hash);
    return found?.request;
  }

  #expire(): void {
    const now = this.#nowMs();
    for (const [hash, { expiresAtMs }] of this.#pending) {
      if (expiresAtMs > now) return;
      this.#pending.delete(hash);
    }
  }
}

function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("base64");
}
