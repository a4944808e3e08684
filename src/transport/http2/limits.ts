/** What one HTTP/2 connection may ask of the daemon. Figures without a source are bunkerd's own. Units end the names. */
export interface Http2Limits {
  /** Streams open at once, announced; one more is refused with REFUSED_STREAM. */
  readonly maxConcurrentStreams: number;
  /** Largest frame that is read: RFC 9113's smallest, as grpc-go's server. Data is never gathered, so a larger one gains nothing. */
  readonly maxFrameBytes: number;
  /** Our side of the HPACK state: RFC 9113's default, not announced and not to be changed but by tests. */
  readonly maxHeaderTableBytes: number;
  /** Sum of a request's fields as section 6.5.2 counts them, announced; more is answered with 431. Bounds HPACK bombs. */
  readonly maxHeaderListBytes: number;
  /** Encoded bytes of one header block: they must be gathered and decoded whatever they mean; more ends the connection. */
  readonly maxHeaderBlockBytes: number;
  /** CONTINUATION frames of one header block; more end the connection. */
  readonly maxContinuations: number;

  /** Receive windows at first: for calls that are no bulk upload they never run out. */
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  /** What a window grows to with the bandwidth-delay product: grpc-go's `bdpLimit`. */
  readonly maxWindowBytes: number;
  /** Bytes delivered to paused streams of a connection before the window of the whole connection is held back. */
  readonly maxHeldBytes: number;
  /** Memory of messages that have not come whole, all calls of a connection; the call that asks for more is reset. */
  readonly maxPartialBytes: number;

  /** Bytes that one stream may have waiting for its peer before its producer is told to stop. */
  readonly maxUnsentBytes: number;
  /** Answers waiting for the peer's windows, all streams of the connection; new streams are refused meanwhile. */
  readonly maxConnectionUnsentBytes: number;
  /** Bytes that the socket has not taken before nothing more is read from it: the peer makes us answer and does not read. */
  readonly maxSocketBacklogBytes: number;

  /**
   * Streams reset by the peer before they were answered, or by us for what the peer did wrong ("rapid reset"): so many at once,
   * then so many a second; more end the connection.
   */
  readonly resetBurst: number;
  readonly resetsPerSecond: number;
  /** SETTINGS frames likewise. */
  readonly settingsBurst: number;
  readonly settingsPerSecond: number;
  /** Frames that move nothing: empty DATA, PRIORITY, unknown types, unasked PING acknowledgements. */
  readonly idleFrameBurst: number;
  readonly idleFramesPerSecond: number;
  /** PINGs that come too early before the connection is ended: grpc-go's `maxPingStrikes`. */
  readonly maxPingStrikes: number;
  /** Too early with a stream open: grpc-go's `defaultKeepalivePolicyMinTime`. */
  readonly minPingIntervalMs: number;
  /** Too early without one: grpc-go's `defaultPingTimeout`. */
  readonly minIdlePingIntervalMs: number;

  /** From the preface to the client's SETTINGS: grpc-go's `connectionTimeout`. */
  readonly handshakeTimeoutMs: number;
  /** A connection that was silent for so long is asked by PING: grpc-go's `defaultServerKeepaliveTime`. */
  readonly keepAliveMs: number;
  /** And ended without an answer: grpc-go's `defaultServerKeepaliveTimeout`. */
  readonly keepAliveTimeoutMs: number;
  /** From the first GOAWAY of a drain to the second, if the client does not acknowledge it: as grpc-go. */
  readonly goawayTimeoutMs: number;
  /** How long a refused connection may take to read why before it is cut. */
  readonly lingerMs: number;
}

export const DEFAULT_HTTP2_LIMITS: Http2Limits = {
  maxConcurrentStreams: 1 << 14,
  maxFrameBytes: 1 << 14,
  maxHeaderTableBytes: 4096,
  maxHeaderListBytes: 1 << 20,
  maxHeaderBlockBytes: 1 << 20,
  maxContinuations: 128,

  streamWindowBytes: 2 << 20,
  connectionWindowBytes: 4 << 20,
  maxWindowBytes: 16 << 20,
  maxHeldBytes: 32 << 20,
  maxPartialBytes: 512 << 20,

  maxUnsentBytes: 256 << 10,
  maxConnectionUnsentBytes: 256 << 20,
  maxSocketBacklogBytes: 1 << 20,

  resetBurst: 2_000,
  resetsPerSecond: 500,
  settingsBurst: 100,
  settingsPerSecond: 10,
  idleFrameBurst: 10_000,
  idleFramesPerSecond: 1_000,
  maxPingStrikes: 2,
  minPingIntervalMs: 5 * 60_000,
  minIdlePingIntervalMs: 2 * 3_600_000,

  handshakeTimeoutMs: 120_000,
  keepAliveMs: 2 * 3_600_000,
  keepAliveTimeoutMs: 20_000,
  goawayTimeoutMs: 5_000,
  lingerMs: 1_000,
};
