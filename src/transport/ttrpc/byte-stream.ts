import type { Duplex } from "node:stream";

/** What a connection runs over: a socket, or one of several streams that share one. */
export type ByteStream = Duplex & {
  /** A socket's: "open" once it is connected. What has none is. */
  readonly readyState?: string;
};
