import {
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport, type UnaryResponse } from "@connectrpc/connect";
import type { ByteStream } from "./byte-stream.ts";
import { type CallSettings, ClientCall, encodeInput } from "./client-call.ts";
import { ClientConnection } from "./client-connection.ts";
import { callStream } from "./client-stream.ts";
import { FrameType } from "./frames.ts";
import { decodeAnswer, decoded, unexpectedFrame } from "./messages.ts";

export interface TtrpcTransportOptions {
  /** A unix socket's path, with or without `unix://`; a leading NUL makes it abstract. Or an open socket, or one that connects. */
  readonly connect: string | (() => ByteStream);
}

/** One connection that Connect's clients call on. It connects at once, and once: after `closed` make another. */
export interface TtrpcTransport extends Transport {
  /** Ends the connection: every call that waits fails now. */
  close(): void;
  /** Resolves when the connection has ended: undefined if either side closed it between two frames. */
  readonly closed: Promise<Error | undefined>;
}

/**
 * ttrpc's client as a Connect transport, for `createClient(Task, transport)`. Calls fail with the server's status, or:
 * Unavailable at once when the connection is lost (`ttrpc: closed`) or was never made (`failed to dial …`); Canceled and
 * DeadlineExceeded at once for the caller's signal and timeout; ResourceExhausted for a message of more than 4 MiB.
 */
export function ttrpcTransport(options: TtrpcTransportOptions): TtrpcTransport {
  const connection = new ClientConnection(options.connect);
  return {
    closed: connection.closed,
    close: () => connection.close(),
    unary: (method, signal, timeoutMs, header, input) =>
      callUnary(connection, method, { signal, timeoutMs, header }, input),
    stream: (method, signal, timeoutMs, header, input) =>
      callStream(connection, method, { signal, timeoutMs, header }, input),
  };
}

function callUnary<I extends DescMessage, O extends DescMessage>(
  connection: ClientConnection,
  method: DescMethodUnary<I, O>,
  settings: CallSettings,
  input: MessageInitShape<I>,
): Promise<UnaryResponse<I, O>> {
  return new Promise((resolve, reject) => {
    const call = new ClientCall(connection, settings, {
      frame({ type }, data) {
        try {
          if (type !== FrameType.response) throw unexpectedFrame(type);
          const payload = decodeAnswer(data);
          const message = decoded(() => fromBinary(method.output, payload));
          call.end();
          resolve({
            stream: false,
            service: method.parent,
            method,
            header: new Headers(),
            trailer: new Headers(),
            message,
          });
        } catch (error) {
          call.failed(ConnectError.from(error, Code.Internal));
        }
      },
      failed: reject,
    });
    call.start(method, 0, encodeInput(method, input));
  });
}
