import type {
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageShape,
} from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Logger } from "../lib/log.ts";
import type { FramedMessage } from "./grpc/framed-message.ts";
import type { PartedMessage } from "./grpc/parted-message.ts";
import type { TransportLimits } from "./limits.ts";

/** The bytes of one response message. */
export type EncodedAnswer = Uint8Array | PartedMessage;

/** Answers the bytes of one response message. Only gRPC uses it; Connect calls the implementation of the same name. */
export type EncodedUnary<Request> = (
  request: Request,
  context: HandlerContext,
) => EncodedAnswer | Promise<EncodedAnswer>;

export type EncodedMessage = Uint8Array | FramedMessage;

/** Yields the bytes of one response message each. */
export type EncodedServerStream<Request> = (
  request: Request,
  context: HandlerContext,
) => Iterable<EncodedMessage> | AsyncIterable<EncodedMessage>;

/** Answers straight from the bytes of a request; undefined leaves it to the method's other implementation, malformed ones too. */
export type RawUnary = (
  request: Uint8Array,
  context: HandlerContext,
) => EncodedAnswer | Promise<EncodedAnswer> | undefined;

export type RawImpl<S extends DescService> = {
  [Method in keyof S["method"]]?: S["method"][Method] extends DescMethodUnary ? RawUnary : never;
};

export type EncodedImpl<S extends DescService> = {
  [Method in keyof S["method"]]?: S["method"][Method] extends DescMethodUnary<infer I>
    ? EncodedUnary<MessageShape<I>>
    : S["method"][Method] extends DescMethodServerStreaming<infer I>
      ? EncodedServerStream<MessageShape<I>>
      : never;
};

/** A service and what answers it, served by gRPC, gRPC-Web and Connect alike. Methods left out answer Unimplemented. */
export interface ServiceBinding<S extends DescService = DescService> {
  readonly service: S;
  readonly implementation: DescService extends S ? object : Partial<ServiceImpl<S>>;
  readonly encoded?: DescService extends S ? object : EncodedImpl<S>;
  /** Asked by gRPC in front of `encoded`, which it needs. */
  readonly raw?: DescService extends S ? object : RawImpl<S>;
  /**
   * The methods, client-streaming or bidi, whose requests pass by: how many earlier requests the implementation still uses when it asks for
   * the next one, whose memory may be that of one before them.
   */
  readonly passing?: Readonly<Partial<Record<string, number>>>;
}

export function bind<S extends DescService>(
  service: S,
  implementation: Partial<ServiceImpl<S>>,
  encoded?: EncodedImpl<S>,
  raw?: RawImpl<S>,
  passing?: { readonly [Method in keyof S["method"]]?: number },
): ServiceBinding<S> {
  const more = { ...(encoded && { encoded }), ...(raw && { raw }), ...(passing && { passing }) };
  const binding = { service, implementation, ...more };
  return binding as ServiceBinding<S>;
}

export type Protocol = "grpc" | "connect" | "grpc-web" | "ttrpc";

/** One finished call. `service` and `method` are empty for a path that no binding has, so that metrics stay bounded. */
export interface ObservedCall {
  readonly service: string;
  readonly method: string;
  readonly protocol: Protocol;
  /** "OK" or the name of the gRPC code, such as "NotFound". */
  readonly code: string;
  readonly seconds: number;
}

/** Called once a call, when it has ended. Must not throw. */
export type CallObserver = (call: ObservedCall) => void;

/** Called once a call, when it has begun; names as {@link ObservedCall}'s. Must not throw. */
export type CallStartObserver = (service: string, method: string) => void;

export interface TransportOptions {
  readonly bindings: readonly ServiceBinding[];
  readonly logger: Logger;
  readonly observe?: CallObserver;
  readonly observeStart?: CallStartObserver;
  readonly limits?: Partial<TransportLimits>;
}
