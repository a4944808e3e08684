import { create, type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import type { EncodedAnswer, RawUnary, ServiceBinding } from "../registry.ts";

interface MethodBase {
  readonly desc: DescMethod;
  /** Names for observers, kept so that a call makes no strings. */
  readonly serviceName: string;
  readonly methodName: string;
  /** Bytes of a value that `call` answered or yielded. @throws Internal */
  readonly encode: (value: unknown) => EncodedAnswer;
  /** See {@link ServiceBinding.passing}. */
  readonly passing: number | undefined;
}

export interface UnaryMethod extends MethodBase {
  readonly kind: "unary";
  readonly call: (request: Message, context: HandlerContext) => unknown;
  readonly raw: RawUnary | undefined;
}

export interface ServerStreamingMethod extends MethodBase {
  readonly kind: "server_streaming";
  readonly call: (request: Message, context: HandlerContext) => AsyncIterable<unknown> | Iterable<unknown>;
}

export interface ClientStreamingMethod extends MethodBase {
  readonly kind: "client_streaming";
  readonly call: (requests: AsyncIterable<Message>, context: HandlerContext) => unknown;
}

export interface BidiStreamingMethod extends MethodBase {
  readonly kind: "bidi_streaming";
  readonly call: (requests: AsyncIterable<Message>, context: HandlerContext) => AsyncIterable<unknown>;
}

/** A method's code with its types erased; `desc` says what they were. */
export type StreamingMethod = ServerStreamingMethod | ClientStreamingMethod | BidiStreamingMethod;
export type Method = UnaryMethod | StreamingMethod;

/**
 * Finds methods by `:path`. A service's methods are looked at when it is first called: at the start most descriptors have not
 * been decoded (`build/lazy-descriptors.ts`), and most services are never called.
 */
export class MethodTable {
  readonly #bindings = new Map<string, ServiceBinding>();
  readonly #opened = new Set<string>();
  /** Of the services that were called. */
  readonly #methods = new Map<string, Method>();

  /** @throws Error if a service is bound twice */
  constructor(bindings: readonly ServiceBinding[]) {
    for (const binding of bindings) {
      const name = binding.service.typeName;
      if (this.#bindings.has(name)) throw new Error(`service ${name} is bound twice`);
      this.#bindings.set(name, binding);
    }
  }

  find(path: string): Method | undefined {
    return this.#methods.get(path) ?? this.#open(path);
  }

  hasService(name: string): boolean {
    return this.#bindings.has(name);
  }

  #open(path: string): Method | undefined {
    const name = path.slice(1, path.lastIndexOf("/"));
    const binding = this.#bindings.get(name);
    if (binding === undefined || this.#opened.has(name)) return undefined;
    this.#opened.add(name);
    for (const desc of binding.service.methods) {
      const method = methodOf(desc, binding);
      if (method !== undefined) this.#methods.set(`/${name}/${desc.name}`, method);
    }
    return this.#methods.get(path);
  }
}

/** The status of a path that the table lacks, worded as grpc-go's `server.go`, `handleStream`. */
export function unknownPath(path: string, table: MethodTable): BunkerdError {
  const at = path.lastIndexOf("/");
  if (!path.startsWith("/") || at === 0) {
    return new BunkerdError("Unimplemented", `malformed method name: ${quote(path)}`);
  }
  const [service, method] = [path.slice(1, at), path.slice(at + 1)];
  const known = table.hasService(service);
  const message = known ? `unknown method ${method} for service ${service}` : `unknown service ${service}`;
  return new BunkerdError("Unimplemented", message);
}

/** @throws Internal, worded as grpc-go words it for that kind of method */
export function decodeRequest(method: Method, bytes: Uint8Array): Message {
  try {
    return fromBinary(method.desc.input, bytes);
  } catch (error) {
    const what =
      method.kind === "unary" ? "error unmarshalling request" : "failed to unmarshal the received message";
    throw new BunkerdError("Internal", `grpc: ${what}: ${messageOf(error)}`);
  }
}

function methodOf(desc: DescMethod, binding: ServiceBinding): Method | undefined {
  const implementation = memberOf(binding.implementation, desc.localName);
  const encoded = memberOf(binding.encoded, desc.localName);
  const call = encoded ?? implementation;
  if (call === undefined) return undefined;
  return {
    desc,
    kind: desc.methodKind,
    call,
    raw: encoded && memberOf(binding.raw, desc.localName),
    encode: encoded === undefined ? (value: unknown) => encodeAnswer(desc, value) : alreadyEncoded,
    serviceName: desc.parent.typeName,
    methodName: desc.name,
    passing: binding.passing?.[desc.localName],
    // `bind()` has checked the function's type against the descriptor's kind.
  } as Method;
}

function memberOf(object: object | undefined, name: string): ((...of: unknown[]) => unknown) | undefined {
  const member: unknown = (object as Record<string, unknown> | undefined)?.[name];
  return typeof member === "function" ? member.bind(object) : undefined;
}

function encodeAnswer(desc: DescMethod, value: unknown): Uint8Array {
  try {
    return toBinary(desc.output, create(desc.output, value as Message));
  } catch (error) {
    throw new BunkerdError("Internal", `grpc: error while marshaling: ${messageOf(error)}`, { cause: error });
  }
}

function alreadyEncoded(value: unknown): EncodedAnswer {
  return value as EncodedAnswer;
}
