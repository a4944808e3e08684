/** gRPC clients for tests: Connect's own gRPC transport over node:http2, so that it shares no code with the daemon. */

import { connect } from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

export interface Connection extends AsyncDisposable {
  client<S extends DescService>(service: S): Client<S>;
  close(): void;
}

/** One HTTP/2 connection to a unix socket. */
export function connectGrpc(socket: string): Connection {
  const sessions = new Http2SessionManager(
    "http://localhost",
    {},
    { createConnection: () => connect(socket) },
  );
  const transport = createGrpcTransport({
    baseUrl: "http://localhost",
    sessionManager: sessions,
    readMaxBytes: 64 << 20,
    writeMaxBytes: 64 << 20,
  });
  return {
    client: (service) => createClient(service, transport),
    close: () => sessions.abort(),
    [Symbol.asyncDispose]: async () => sessions.abort(),
  };
}

/** Call options that carry a namespace. */
export function inNamespace(namespace: string, extra: Readonly<Record<string, string>> = {}): CallOptions {
  return { headers: { "containerd-namespace": namespace, ...extra } };
}

/** The error that a call must end with, as `code: message`. */
export async function errorOf(call: Promise<unknown>): Promise<{ code: number; message: string }> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return { code: error.code, message: error.rawMessage };
    throw error;
  }
  throw new Error("the call did not fail");
}
