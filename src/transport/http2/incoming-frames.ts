import { ConnectionError, ErrorCode, expectSize } from "./errors.ts";
import { Flag, type FrameSink, FrameType, MAX_SENT_FRAME_BYTES, MAX_STREAM_ID, uint32At } from "./frames.ts";
import { HeaderAssembly } from "./header-assembly.ts";
import { HeaderBlock } from "./header-block.ts";
import { HpackDecoder } from "./hpack/decoder.ts";
import type { Http2Limits } from "./limits.ts";
import type { Output } from "./output.ts";
import type { PingPolicy } from "./ping-policy.ts";
import { RateLimit } from "./rate-limit.ts";
import { BANDWIDTH_PING, type ReceiveWindow } from "./receive-window.ts";
import type { Sender } from "./sender.ts";
import { readSettings } from "./settings.ts";
import type { Streams } from "./streams.ts";

/** Our own PINGs, told apart by what they carry back. */
export const KEEPALIVE_PING = Buffer.from("bunkeep.", "latin1");
export const DRAIN_PING = Buffer.from("bunkdrn.", "latin1");

const NOTHING = Buffer.alloc(0);

/** What frames act upon. */
export interface IncomingOptions {
  readonly output: Output;
  readonly sender: Sender;
  readonly receiveWindow: ReceiveWindow;
  readonly streams: Streams;
  readonly pings: PingPolicy;
  readonly limits: Http2Limits;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
  /** {@link DRAIN_PING} has come back. */
  drainSeen(): void;
}

/**
 * What a client's frames mean to its connection (RFC 9113 section 6): the ones of stream 0 are answered here, the others go to their streams. What
 * it throws ends the connection.
 */
export class IncomingFrames implements FrameSink {
  readonly #output: Output;
  readonly #sender: Sender;
  readonly #receiveWindow: ReceiveWindow;
  readonly #streams: Streams;
  readonly #pings: PingPolicy;
  readonly #now: () => number;
  readonly #drainSeen: () => void;
  readonly #assembly: HeaderAssembly;
  readonly #decoder: HpackDecoder<HeaderBlock>;
  readonly #settingsRate: RateLimit;
  #settled = false;

  constructor(options: IncomingOptions) {
    const { limits, now } = options;
    this.#output = options.output;
    this.#sender = options.sender;
    this.#receiveWindow = options.receiveWindow;
    this.#streams = options.streams;
    this.#pings = options.pings;
    this.#now = now;
    this.#drainSeen = () => options.drainSeen();
    this.#assembly = new HeaderAssembly(limits);
    this.#decoder = new HpackDecoder(
      { maxTableBytes: limits.maxHeaderTableBytes, maxListBytes: limits.maxHeaderListBytes },
      (fields, oversize) => new HeaderBlock(fields, oversize),
    );
    this.#settingsRate = new RateLimit(limits.settingsBurst, limits.settingsPerSecond, now);
  }

  /** The client's SETTINGS have come. */
  get settled(): boolean {
    return this.#settled;
  }

  /** {@link FrameSink}: what a frame's header alone makes wrong. */
  begin(type: number, flags: number, streamId: number, length: number): void {
    const { awaited } = this.#assembly;
    if (awaited !== 0) {
      if (type === FrameType.continuation && streamId === awaited) return;
      throw new ConnectionError(
        ErrorCode.protocolError,
        `frame within the header block of stream ${awaited}`,
      );
    }
    if (!this.#settled && (type !== FrameType.settings || (flags & Flag.ack) !== 0)) {
      throw new ConnectionError(ErrorCode.protocolError, "first frame is not SETTINGS");
    }
    if (type === FrameType.data) this.#streams.beginData(streamId, length);
    else if (type > FrameType.continuation) this.#streams.countIdleFrame("unknown");
  }

  /** {@link FrameSink} */
  data(bytes: Buffer): void {
    this.#streams.data(bytes);
  }

  /** {@link FrameSink} */
  dataEnd(flags: number): void {
    this.#streams.endData(flags);
  }

  /** {@link FrameSink} */
  frame(type: number, flags: number, streamId: number, bytes: Buffer): void {
    const payload = this.#streams.borrowed ? Buffer.from(bytes) : bytes;
    if (type === FrameType.headers) {
      if (streamId === 0) throw new ConnectionError(ErrorCode.protocolError, "HEADERS on stream 0");
      this.#block(this.#assembly.headers(flags, streamId, payload));
    } else if (type === FrameType.continuation) {
      if (this.#assembly.awaited === 0) {
        throw new ConnectionError(ErrorCode.protocolError, "CONTINUATION without HEADERS");
      }
      this.#block(this.#assembly.continuation(flags, payload));
    } else if (type === FrameType.windowUpdate) {
      this.#windowUpdated(streamId, payload);
    } else if (type === FrameType.rstStream) {
      expectSize("RST_STREAM", payload.length === 4);
      this.#streams.reset(streamId, uint32At(payload, 0));
    } else if (type === FrameType.priority) {
      this.#priority(streamId, payload);
    } else if (type === FrameType.pushPromise) {
      throw new ConnectionError(ErrorCode.protocolError, "PUSH_PROMISE from a client");
    } else {
      if (streamId !== 0) {
        throw new ConnectionError(ErrorCode.protocolError, `frame of type ${type} on stream ${streamId}`);
      }
      this.#connectionFrame(type, flags, payload);
    }
  }

  #connectionFrame(type: number, flags: number, payload: Buffer): void {
    if (type === FrameType.settings) {
      this.#settings(flags, payload);
    } else if (type === FrameType.ping) {
      expectSize("PING", payload.length === 8);
      this.#ping(flags, payload);
    } else {
      // The peer opens no more streams; it closes the connection when it has its answers.
      expectSize("GOAWAY", payload.length >= 8);
    }
  }

  #block(block: Buffer | undefined): void {
    if (block === undefined) return;
    const { streamId, endStream, selfDependent } = this.#assembly;
    this.#streams.headers(streamId, this.#decoder.decode(block), endStream, selfDependent);
  }

  #windowUpdated(streamId: number, payload: Buffer): void {
    expectSize("WINDOW_UPDATE", payload.length === 4);
    const increment = uint32At(payload, 0) & MAX_STREAM_ID;
    if (streamId !== 0) {
      this.#streams.windowUpdate(streamId, increment);
    } else {
      if (increment === 0) throw new ConnectionError(ErrorCode.protocolError, "WINDOW_UPDATE of 0");
      this.#sender.grow(increment);
    }
  }

  /** Section 5.3: priorities are checked and mean nothing. */
  #priority(streamId: number, payload: Buffer): void {
    if (streamId === 0) throw new ConnectionError(ErrorCode.protocolError, "PRIORITY on stream 0");
    this.#streams.countIdleFrame("PRIORITY");
    if (payload.length !== 5) {
      this.#streams.wrongPriority(streamId, ErrorCode.frameSizeError, "PRIORITY of a wrong length");
    } else if ((uint32At(payload, 0) & MAX_STREAM_ID) === streamId) {
      this.#streams.wrongPriority(streamId, ErrorCode.protocolError, "stream depends on itself");
    }
  }

  #settings(flags: number, payload: Buffer): void {
    if ((flags & Flag.ack) !== 0) {
      expectSize("acknowledgement of SETTINGS", payload.length === 0);
      return;
    }
    expectSize("SETTINGS", payload.length % 6 === 0);
    if (!this.#settingsRate.allow()) {
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "too many SETTINGS frames");
    }
    this.#settled = true;
    const { headerTableBytes, initialWindowBytes, maxFrameBytes } = readSettings(payload);
    if (headerTableBytes !== undefined && headerTableBytes < 4096) this.#output.tableUpdateDue = true;
    if (maxFrameBytes !== undefined)
      this.#output.maxFrameBytes = Math.min(maxFrameBytes, MAX_SENT_FRAME_BYTES);
    this.#output.frame(FrameType.settings, Flag.ack, 0, NOTHING);
    if (initialWindowBytes !== undefined)
      this.#sender.setInitialWindow(initialWindowBytes, this.#streams.all());
  }

  #ping(flags: number, payload: Buffer): void {
    if ((flags & Flag.ack) === 0) {
      this.#output.frame(FrameType.ping, Flag.ack, 0, payload);
      if (this.#pings.allow(this.#now(), this.#streams.size)) return;
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "too_many_pings");
    }
    if (payload.equals(BANDWIDTH_PING)) this.#receiveWindow.measured(this.#streams.all());
    else if (payload.equals(DRAIN_PING)) this.#drainSeen();
    else if (!payload.equals(KEEPALIVE_PING)) this.#streams.countIdleFrame("PING acknowledgement");
  }
}
