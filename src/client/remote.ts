import type { DescService } from "@bufbuild/protobuf";
import type { CallOptions, Client as RpcClient, Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import type { Scope } from "../model/scope.ts";
import { type GrpcTransport, grpcTransport } from "../transport/grpc/client.ts";
import { fromConnectError } from "./status.ts";

/** Above containerd's own 16 MiB, so that the server's limit is the one that is met. */
const MAX_MESSAGE_BYTES = 64 << 20;

/** One server, reached by gRPC over HTTP/2 on one connection that is opened at the first call and again when it was lost. */
export class Remote {
  readonly address: string;
  readonly #own: GrpcTransport | undefined;
  readonly #transport: Transport;
  readonly #services = new Map<DescService, RpcClient<DescService>>();

  /** @param address path of a unix socket, with or without `unix://` @param transport to the server, if there is another way than its socket */
  constructor(address: string, transport?: Transport) {
    this.address = address;
    if (transport !== undefined) {
      this.#transport = transport;
      return;
    }
    const path = address.replace(/^unix:\/\//, "");
    this.#own = grpcTransport({ connect: path, maxMessageBytes: MAX_MESSAGE_BYTES });
    this.#transport = this.#own;
  }

  service<S extends DescService>(service: S): RpcClient<S> {
    const made = this.#services.get(service) ?? createClient(service, this.#transport);
    this.#services.set(service, made);
    return made as RpcClient<S>;
  }

  /** Awaits a unary call. @throws BunkerdError with the server's code and message, or Unavailable */
  async answer<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw fromConnectError(error, this.address);
    }
  }

  /** Messages of a stream as they come. @throws as {@link answer} */
  async *messages<T>(stream: AsyncIterable<T>): AsyncGenerator<T, undefined> {
    try {
      yield* stream;
    } catch (error) {
      throw fromConnectError(error, this.address);
    }
  }

  /** Fails what is under way on a connection. */
  close(): void {
    this.#own?.close();
  }
}

/** Headers as containerd's clients send them: `pkg/namespaces/grpc.go`, `core/leases/grpc.go`. An empty namespace is none. */
export function callOptions({ namespace, lease, signal }: Scope): CallOptions {
  const headers: Record<string, string> = {};
  if (namespace !== "") headers["containerd-namespace"] = namespace;
  if (lease !== undefined) headers["containerd-lease"] = lease;
  return signal === undefined ? { headers } : { headers, signal };
}

/** The message that an answer must hold. */
export function required<T>(message: T | undefined, what: string): T {
  if (message === undefined) throw new Error(`server answered without ${what}`);
  return message;
}
