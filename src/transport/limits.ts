/** Limits of the wire, in one place. The figures without a source are bunkerd's own. */

/** Largest gRPC message, both ways: containerd's `defaults.DefaultMaxRecvMsgSize` and `DefaultMaxSendMsgSize`. */
export const MAX_MESSAGE_BYTES = 16 << 20;

/** Received messages of a streaming call that wait for the implementation before the stream is paused. */
export const MAX_QUEUED_MESSAGES = 16;

/** Their bytes: whichever limit is met first pauses the stream. */
export const MAX_QUEUED_BYTES = 64 << 10;

/** Bytes that one stream may have waiting for its peer before its producer is stopped. */
export const MAX_UNSENT_BYTES = 256 << 10;

/** Connections that may wait to be accepted: what Go asks for where `net.core.somaxconn` is Linux's default. */
export const ACCEPT_BACKLOG = 4096;

/** A connection that has not shown its protocol after this time is closed: grpc-go's `connectionTimeout`. */
export const SNIFF_TIMEOUT_MS = 120_000;

/** An HTTP/1.1 connection without a request is closed after this time: Node's `headersTimeout`. */
export const HTTP1_IDLE_TIMEOUT_MS = 60_000;

/** What {@link TransportOptions} may change, tests mostly. */
export interface TransportLimits {
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  readonly maxQueuedMessages: number;
  readonly maxQueuedBytes: number;
  readonly maxUnsentBytes: number;
  readonly sniffTimeoutMs: number;
  readonly http1IdleTimeoutMs: number;
}

export const DEFAULT_LIMITS: TransportLimits = {
  maxReceiveBytes: MAX_MESSAGE_BYTES,
  maxSendBytes: MAX_MESSAGE_BYTES,
  maxQueuedMessages: MAX_QUEUED_MESSAGES,
  maxQueuedBytes: MAX_QUEUED_BYTES,
  maxUnsentBytes: MAX_UNSENT_BYTES,
  sniffTimeoutMs: SNIFF_TIMEOUT_MS,
  http1IdleTimeoutMs: HTTP1_IDLE_TIMEOUT_MS,
};
