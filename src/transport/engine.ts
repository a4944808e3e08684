import type { Socket } from "node:net";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { Logger } from "../lib/log.ts";
import type { GrpcStreamHandler } from "./grpc/stream.ts";
import type { TransportLimits } from "./limits.ts";

/** What an HTTP/2 engine serves. */
export interface EngineHandlers {
  /** Requests with a content-type of gRPC (see `isGrpc` in `grpc/content-type.ts`). */
  readonly grpc: GrpcStreamHandler;
  /** All others: Connect, gRPC-Web, anything that must be refused in words of HTTP. */
  readonly universal: (request: UniversalServerRequest) => Promise<UniversalServerResponse>;
  readonly logger: Logger;
  readonly limits: TransportLimits;
}

/** Serves HTTP/2 on sockets that the listener accepted. Implemented by `http2/`, and over `node:http2` in `test/support`. */
export interface Http2Engine {
  /**
   * Takes over a connection, flowing: listens for data before this returns. `received` begins with the client's preface. The
   * socket allows half-open, so that the engine must see to its `end` (grpc-go closes the connection); its `error` is listened to.
   */
  accept(socket: Socket, received: Buffer): void;
  /** Says GOAWAY on every connection, closes each when its last stream has ended; resolves when none is left. */
  drain(): Promise<void>;
  /** Ends what is left at once: every open stream is cancelled. */
  destroy(): void;
}

export type Http2EngineFactory = (handlers: EngineHandlers) => Http2Engine;
