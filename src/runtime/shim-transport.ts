import { connect } from "node:net";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { fail, messageOf, unquoted } from "../model/errors.ts";
import { grpcTransport } from "../transport/grpc/client.ts";
import { shimSocketPath } from "../transport/ttrpc/address.ts";
import { ttrpcTransport } from "../transport/ttrpc/client.ts";
import type { Bootstrap } from "./bootstrap.ts";

/** One connection to a shim, in the background at once, and once. Calls fail with Unavailable when it is lost: see {@link isLostMessage}. */
export interface ShimTransport extends Transport {
  close(): void;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<unknown>;
  /** What namespace a call is for. */
  readonly namespaceHeader: string;
}

/** Larger than what containerd takes of a shim, which is grpc-go's 4 MiB. */
const MAX_MESSAGE_BYTES = 16 << 20;

/** Source of the rules: `core/runtime/v2/shim.go`, `makeConnection`. @throws Unimplemented for a protocol or an address that is not spoken */
export function shimTransport({ protocol, address }: Bootstrap, shimId: string): ShimTransport {
  switch (protocol.toLowerCase()) {
    case "ttrpc":
      return Object.assign(ttrpcTransport({ connect: shimSocketPath(address) }), {
        // containerd `pkg/namespaces/ttrpc.go`.
        namespaceHeader: "containerd-namespace-ttrpc",
      });
    case "grpc":
      return grpcShim(address);
    default:
      throw fail("Unimplemented", `protocol ${unquoted(protocol)} of shim ${shimId}`);
  }
}

/** True of a message of Unavailable that says: the connection was lost, or never made. */
export function isLostMessage(message: string): boolean {
  return /^(?:(?:ttrpc|grpc): closed$|failed to dial )/.test(message);
}

/** Where a shim listens that speaks gRPC: a plain path, too. @throws as {@link shimSocketPath} */
export function grpcSocketPath(address: string): string {
  return address.startsWith("/") ? address : shimSocketPath(address);
}

/** gRPC opens a connection when it is called, and another when that was lost: a shim is gone with its first. */
function grpcShim(address: string): ShimTransport {
  const path = grpcSocketPath(address);
  const socket = connect({ path });
  const closed = Promise.withResolvers<void>();
  let connected = false;
  let failure: Error | undefined;
  let usable = true;
  socket.once("connect", () => {
    connected = true;
  });
  socket.on("error", (error) => {
    failure = error;
  });
  socket.once("close", () => {
    usable = false;
    closed.resolve();
  });
  const inner = grpcTransport({
    maxMessageBytes: MAX_MESSAGE_BYTES,
    connect: () => {
      if (!usable) throw new ConnectError("closed", Code.Unavailable);
      usable = false;
      return socket;
    },
  });
  const lost = (error: unknown): unknown => {
    if (!(error instanceof ConnectError) || error.code !== Code.Unavailable || error.isWireError)
      return error;
    const never = `failed to dial ${JSON.stringify(path)}: ${messageOf(failure ?? error)}`;
    return new ConnectError(
      connected ? "grpc: closed" : never,
      Code.Unavailable,
      undefined,
      undefined,
      error,
    );
  };
  return {
    // containerd `pkg/namespaces/grpc.go`.
    namespaceHeader: "containerd-namespace",
    closed: closed.promise,
    close: () => void socket.destroy(),
    async unary(...call) {
      try {
        return await inner.unary(...call);
      } catch (error) {
        throw lost(error);
      }
    },
    stream: (...call) => inner.stream(...call),
  };
}
