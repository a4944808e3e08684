import { BandwidthEstimator } from "./bandwidth.ts";
import { ConnectionError, ErrorCode } from "./errors.ts";
import type { Http2Limits } from "./limits.ts";

/** Share of a window that must be consumed before it is given back: often enough that a sender never waits. */
const RETURN_SHARE = 4;

/** DATA frames of this size and more are bulk, for which it matters how large the windows are. */
const BULK_FRAME_BYTES = 8 << 10;

/**
 * Probes one after another that need not make the window grow; then none comes until so much as a window has: a probe and its
 * acknowledgement cost both sides as much as a small message does. More than one, as the first may begin in the middle of a burst.
 */
const VAIN_PROBES = 2;

/** What our PINGs carry that measure the bandwidth. */
export const BANDWIDTH_PING = Buffer.from("bunkbdp.", "latin1");

/** The receiving half of a stream's flow control. */
export interface ReceiveState {
  readonly id: number;
  /** What the peer may still send. */
  receiveWindow: number;
  /** Received and not given back. */
  unreturnedBytes: number;
  paused: boolean;
  remoteEnded: boolean;
}

/** Sends what the receiving half decides. */
export interface WindowWriter {
  /** WINDOW_UPDATE, of the connection for stream 0. */
  windowUpdate(streamId: number, increment: number): void;
  /** A PING to measure by. */
  probe(): void;
  /** SETTINGS_INITIAL_WINDOW_SIZE. */
  announceWindow(bytes: number): void;
}

/**
 * What the peer may send, for a connection and its streams (RFC 9113 section 5.2). Streams share one size of window, which grows with
 * the bandwidth-delay product. A paused stream gets nothing back; the connection does, so that others go on, until
 * paused streams hold too much.
 */
export class ReceiveWindow {
  readonly #limits: Http2Limits;
  readonly #writer: WindowWriter;
  readonly #now: () => number;
  readonly #bandwidth = new BandwidthEstimator();
  /** Probes since the window grew, or since there was a pause. */
  #probes = 0;
  /** Received in the pause. */
  #unprobedBytes = 0;
  /** Size of a stream's window. */
  #streamBytes: number;
  #connectionBytes: number;
  /** What the peer may still send on the connection. */
  #available: number;
  #unreturnedBytes = 0;
  /** Unreturned bytes of paused streams. */
  #heldBytes = 0;
  /** A DATA frame has begun, at whose end is given back: not within it, so that it does not matter how it came. */
  #inFrame = false;

  constructor(limits: Http2Limits, writer: WindowWriter, now: () => number) {
    this.#limits = limits;
    this.#writer = writer;
    this.#now = now;
    this.#streamBytes = limits.streamWindowBytes;
    this.#connectionBytes = limits.connectionWindowBytes;
    this.#available = limits.connectionWindowBytes;
  }

  get streamBytes(): number {
    return this.#streamBytes;
  }

  /** A DATA frame begins, whatever its stream. @throws ConnectionError if the connection's window has not room for it */
  received(bytes: number): void {
    this.#inFrame = true;
    this.#available -= bytes;
    if (this.#available < 0) {
      throw new ConnectionError(ErrorCode.flowControlError, "data is over the window of the connection");
    }
    this.#unreturnedBytes += bytes;
    if (this.#bandwidth.sampling) this.#bandwidth.received(bytes);
    else if (this.#connectionBytes < this.#limits.maxWindowBytes) this.#sample(bytes);
  }

  /** The same frame for its stream. False if the stream's window has not room for it. */
  receivedOn(stream: ReceiveState, bytes: number): boolean {
    stream.receiveWindow -= bytes;
    if (stream.receiveWindow < 0) return false;
    stream.unreturnedBytes += bytes;
    if (stream.paused) this.#heldBytes += bytes;
    return true;
  }

  /** The frame was delivered: gives back what is due. */
  consumed(stream: ReceiveState | undefined): void {
    this.#inFrame = false;
    if (stream !== undefined) this.#giveBack(stream);
    this.#giveBackConnection();
  }

  pause(stream: ReceiveState): void {
    if (stream.paused) return;
    stream.paused = true;
    this.#heldBytes += stream.unreturnedBytes;
  }

  resume(stream: ReceiveState): void {
    if (!stream.paused) return;
    stream.paused = false;
    this.#heldBytes -= stream.unreturnedBytes;
    this.#giveBack(stream);
    this.#giveBackConnection();
  }

  /** The stream is gone: what it holds counts no more. */
  closed(stream: ReceiveState): void {
    if (!stream.paused) return;
    stream.paused = false;
    this.#heldBytes -= stream.unreturnedBytes;
    stream.unreturnedBytes = 0;
    if (!this.#inFrame) this.#giveBackConnection();
  }

  /** The probe was acknowledged. */
  measured(streams: Iterable<ReceiveState>): void {
    const { maxWindowBytes } = this.#limits;
    const bytes = Math.floor(this.#bandwidth.end(this.#now(), this.#connectionBytes, maxWindowBytes));
    if (bytes <= this.#connectionBytes) return;
    this.#unreturnedBytes += bytes - this.#connectionBytes;
    this.#connectionBytes = bytes;
    this.#probes = 0;
    this.#giveBackConnection();
    const delta = bytes - this.#streamBytes;
    if (delta <= 0) return;
    this.#streamBytes = bytes;
    this.#writer.announceWindow(bytes);
    // The peer adds the difference to the window of each open stream when it reads this.
    for (const stream of streams) stream.receiveWindow += delta;
  }

  #giveBack(stream: ReceiveState): void {
    if (stream.paused || stream.remoteEnded) return;
    if (stream.unreturnedBytes < this.#streamBytes / RETURN_SHARE) return;
    this.#writer.windowUpdate(stream.id, stream.unreturnedBytes);
    stream.receiveWindow += stream.unreturnedBytes;
    stream.unreturnedBytes = 0;
  }

  #giveBackConnection(): void {
    if (this.#unreturnedBytes < this.#connectionBytes / RETURN_SHARE) return;
    if (this.#heldBytes > this.#limits.maxHeldBytes) return;
    this.#writer.windowUpdate(0, this.#unreturnedBytes);
    this.#available += this.#unreturnedBytes;
    this.#unreturnedBytes = 0;
  }

  #sample(bytes: number): void {
    if (this.#probes >= VAIN_PROBES) {
      this.#unprobedBytes += bytes;
      if (this.#unprobedBytes < this.#connectionBytes) return;
      this.#probes = 0;
      this.#unprobedBytes = 0;
    }
    if (bytes < BULK_FRAME_BYTES) return;
    this.#probes += 1;
    this.#bandwidth.begin(this.#now());
    this.#bandwidth.received(bytes);
    this.#writer.probe();
  }
}
