import type { Socket } from "bun";
import type { Wire } from "./http2/wire.ts";

type Event = "connect" | "data" | "drain" | "end" | "close" | "error";

/** What the kernel has not taken yet. */
interface Unsent {
  readonly bytes: Uint8Array;
  readonly written: (() => void) | undefined;
}

/**
 * A connection to a unix socket by the runtime's own calls: a command that makes a few calls and ends would spend a tenth of its time on
 * loading `node:net`. It tells what a `net.Socket` tells, each event to one listener; a failure is worded as there: `connect ENOENT /run/x.sock`.
 */
export class UnixWire implements Wire {
  readonly #path: string;
  readonly #listeners = new Map<Event, (value?: unknown) => void>();
  #socket: Socket | undefined;
  #unsent: Unsent[] = [];
  #unsentBytes = 0;
  #connecting = true;
  #destroyed = false;
  #ending = false;
  #referred = true;
  /** Somebody was told that the kernel has not taken everything. */
  #refused = false;

  constructor(path: string) {
    this.#path = path;
    // The runtime may have connected before its call returns: whoever wants to hear of it listens by then.
    queueMicrotask(() => void this.#connect());
  }

  get connecting(): boolean {
    return this.#connecting;
  }

  get destroyed(): boolean {
    return this.#destroyed;
  }

  get writableLength(): number {
    return this.#unsentBytes;
  }

  /** The runtime's descriptor while it is connected. */
  get fd(): number | undefined {
    return this.#destroyed ? undefined : (this.#socket as { fd?: number } | undefined)?.fd;
  }

  async #connect(): Promise<void> {
    if (this.#destroyed) return;
    try {
      await Bun.connect({
        unix: this.#path,
        // Otherwise ours would end with the server's, and the runtime's `end` would end both.
        allowHalfOpen: true,
        socket: {
          open: (socket) => this.#opened(socket),
          data: (_socket, chunk) => {
            if (!this.#destroyed) this.#tell("data", chunk);
          },
          drain: () => {
            this.#push();
            this.#tellDrained();
          },
          end: () => this.#ended(),
          error: (_socket, error) => this.#lost(error),
          close: (_socket, error) => this.#lost(error),
          connectError: (_socket, error) => this.#lost(error),
        },
      });
    } catch (error) {
      this.#lost(error);
    }
  }

  /** A listener's own error is as it was thrown. */
  #worded(cause: Error): Error {
    const { code, errno, syscall = "connect" } = cause as NodeJS.ErrnoException;
    if (code === undefined) return cause;
    const of = syscall === "connect" ? ` ${this.#path}` : "";
    return Object.assign(new Error(`${syscall} ${code}${of}`, { cause }), { code, errno, syscall });
  }

  #opened(socket: Socket): void {
    if (this.#destroyed) {
      socket.terminate();
      return;
    }
    this.#socket = socket;
    this.#connecting = false;
    if (!this.#referred) socket.unref();
    this.#tell("connect");
    this.#push();
    this.#tellDrained();
  }

  /** The server's side has ended: so does this one, as a `net.Socket` does that is not told otherwise. */
  #ended(): void {
    if (this.#destroyed) return;
    this.#tell("end");
    this.end();
  }

  #lost(error: unknown): void {
    if (this.#destroyed) return;
    const socket = this.#socket;
    this.#forget();
    // What a listener throws comes here too, and leaves it open.
    socket?.terminate();
    // The runtime may say so within a call of ours, and run microtasks before it returns.
    setImmediate(() => {
      if (error instanceof Error) this.#tell("error", this.#worded(error));
      this.#tell("close");
    });
  }

  #forget(): void {
    this.#connecting = false;
    this.#destroyed = true;
    this.#socket = undefined;
    this.#unsent = [];
    this.#unsentBytes = 0;
  }

  #tell(event: Event, value?: unknown): void {
    this.#listeners.get(event)?.(value);
  }

  on(event: Event, listener: (value: never) => void): this {
    this.#listeners.set(event, listener as (value?: unknown) => void);
    return this;
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#destroyed || this.#ending) return false;
    this.#unsent.push({ bytes, written });
    this.#unsentBytes += bytes.length;
    this.#push();
    this.#refused ||= this.#unsentBytes > 0;
    // Never within this call: who hears of it writes, and that would go before what the caller writes next.
    if (this.#refused && this.#unsentBytes === 0) queueMicrotask(() => this.#tellDrained());
    return this.#unsentBytes === 0;
  }

  /** Gives the kernel what it has room for. */
  #push(): void {
    for (let first = this.#unsent[0]; first !== undefined; first = this.#unsent[0]) {
      if (this.#socket === undefined) return;
      const sent = Math.max(this.#socket.write(first.bytes), 0);
      // It may have been lost within that call.
      if (this.#socket === undefined) return;
      this.#unsentBytes -= sent;
      if (sent < first.bytes.length) {
        this.#unsent[0] = { bytes: first.bytes.subarray(sent), written: first.written };
        return;
      }
      this.#unsent.shift();
      if (first.written !== undefined) queueMicrotask(first.written);
    }
    if (this.#ending) this.#socket?.shutdown();
  }

  #tellDrained(): void {
    if (!this.#refused || this.#destroyed || this.#unsentBytes > 0) return;
    this.#refused = false;
    this.#tell("drain");
  }

  end(): void {
    this.#ending = true;
    this.#push();
  }

  destroy(): void {
    const socket = this.#socket;
    if (this.#destroyed) return;
    this.#forget();
    socket?.terminate();
    setImmediate(() => this.#tell("close"));
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  ref(): void {
    this.#referred = true;
    this.#socket?.ref();
  }

  unref(): void {
    this.#referred = false;
    this.#socket?.unref();
  }
}
