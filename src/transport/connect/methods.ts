import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
  type HandlerContext,
  type MethodImpl,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { compressionGzip } from "@connectrpc/connect-node";
import { MAX_MESSAGE_BYTES } from "../limits.ts";
import type { ServiceBinding, TransportOptions } from "../registry.ts";
import { calls } from "./call.ts";
import { jsonCodec } from "./json.ts";
import { jsonImpl, jsonMethod, quotedText } from "./json-methods.ts";
import { anyTypes } from "./types.ts";

/** An implementation whose types are those of its method's descriptor, whatever the method. */
export type AnyMethodImpl = (request: unknown, context: HandlerContext) => unknown;

/** One method over HTTP: Connect's handlers for its binary and its JSON encoding. */
export interface HttpMethod {
  readonly desc: DescMethod;
  readonly binary: UniversalHandler;
  readonly json: UniversalHandler;
}

/** Every method of every binding by its path, `/containerd.services.containers.v1.Containers/Get`. */
export function httpMethods(options: TransportOptions): ReadonlyMap<string, HttpMethod> {
  const codec = jsonCodec(anyTypes);
  const common: ConnectRouterOptions = {
    acceptCompression: [compressionGzip],
    readMaxBytes: options.limits?.maxReceiveBytes ?? MAX_MESSAGE_BYTES,
    writeMaxBytes: options.limits?.maxSendBytes ?? MAX_MESSAGE_BYTES,
    interceptors: [calls(options.logger)],
  };
  // Binary gRPC has its own handler in grpc/; gRPC with JSON is rare enough to be left to Connect's.
  const binaryRouter = createConnectRouter({ ...common, grpc: false });
  const jsonRouter = createConnectRouter({ ...common, jsonOptions: quotedText as object });
  const methods = new Map<string, HttpMethod>();
  for (const binding of options.bindings) {
    for (const desc of binding.service.methods) {
      const impl = implementationOf(binding, desc);
      const binary = handlerOf(binaryRouter, desc, impl);
      const json = handlerOf(jsonRouter, jsonMethod(desc), jsonImpl(desc, impl, codec));
      methods.set(binary.requestPath, { desc, binary, json });
    }
  }
  return methods;
}

function handlerOf(router: ConnectRouter, method: DescMethod, impl: AnyMethodImpl): UniversalHandler {
  // The descriptor and the implementation agree by ServiceBinding's type, which the table no longer knows.
  const handler = router.rpc(method, impl as MethodImpl<DescMethod>).handlers.at(-1);
  if (handler === undefined) throw new TypeError(`Connect's router made no handler for ${method}`);
  return handler;
}

function implementationOf(binding: ServiceBinding, method: DescMethod): AnyMethodImpl {
  const implementation = binding.implementation as Record<string, AnyMethodImpl | undefined>;
  const impl = implementation[method.localName];
  if (impl !== undefined) return impl.bind(implementation);
  return () => {
    throw new ConnectError(`method ${method.name} not implemented`, Code.Unimplemented);
  };
}
