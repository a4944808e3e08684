import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { CallContext } from "./grpc/context.ts";
import { whole } from "./grpc/parted-message.ts";
import type { RequestHead } from "./grpc/request-headers.ts";
import type { EncodedAnswer, ServiceBinding } from "./registry.ts";

type Handler = (request: unknown, context: CallContext) => unknown;

/**
 * Calls of a program on its own services, without a socket: messages are copied by way of their bytes, so that neither side sees what the other
 * does to them. Errors are the service's own; Canceled at once when the caller's signal aborts. Streams of requests are not carried out.
 */
export function localTransport(bindings: readonly ServiceBinding[]): Transport {
  return {
    async unary(method, signal, _timeoutMs, _header, input) {
      const { context, aborted, end } = begin(method, signal);
      try {
        const request = copied(method.input, input);
        const encoded = handlerOf(bindings, method, "encoded");
        const answer = async (): Promise<MessageShape<typeof method.output>> => {
          if (encoded !== undefined)
            return fromBinary(method.output, whole((await encoded(request, context)) as EncodedAnswer));
          const handler = handlerOf(bindings, method, "implementation") ?? unimplemented(method);
          const message = (await handler(request, context)) as MessageInitShape<typeof method.output>;
          return copied(method.output, message);
        };
        const message = await Promise.race([answer(), aborted]);
        const { responseHeader: header, responseTrailer: trailer } = context;
        return { stream: false, service: method.parent, method, header, trailer, message };
      } finally {
        end();
      }
    },

    async stream(method, signal, _timeoutMs, _header, input) {
      if (method.methodKind !== "server_streaming") throw unimplemented(method);
      const handler = handlerOf(bindings, method, "implementation") ?? unimplemented(method);
      const { context, end } = begin(method, signal);
      const { responseHeader: header, responseTrailer: trailer } = context;
      const messages = async function* () {
        try {
          for await (const request of input) {
            const answers = handler(copied(method.input, request), context);
            for await (const message of answers as AsyncIterable<MessageInitShape<typeof method.output>>)
              yield copied(method.output, message);
          }
        } finally {
          end();
        }
      };
      return { stream: true, service: method.parent, method, header, trailer, message: messages() };
    },
  };
}

const HEAD: RequestHead = { method: "POST", path: "/", headers: () => [], header: () => undefined };

/** A call's context, aborted with the caller's signal and at its end. */
function begin(method: DescMethod, signal: AbortSignal | undefined) {
  const context = new CallContext(method, HEAD, Number.POSITIVE_INFINITY);
  const cut = Promise.withResolvers<never>();
  cut.promise.catch(() => undefined);
  const abort = (): void => {
    context.abort(signal?.reason);
    cut.reject(new ConnectError("This operation was aborted", Code.Canceled));
  };
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  const end = (): void => {
    signal?.removeEventListener("abort", abort);
    context.abort(undefined);
  };
  return { context, aborted: cut.promise, end };
}

function handlerOf(
  bindings: readonly ServiceBinding[],
  method: DescMethod,
  kind: "implementation" | "encoded",
): Handler | undefined {
  const binding = bindings.find(({ service }) => service.typeName === method.parent.typeName);
  const handlers = binding?.[kind] as Record<string, Handler | undefined> | undefined;
  return handlers?.[method.localName]?.bind(handlers);
}

function unimplemented(method: DescMethod): never {
  throw new ConnectError(`${method.parent.typeName}.${method.name} is not implemented`, Code.Unimplemented);
}

function copied<Desc extends DescMessage>(desc: Desc, message: MessageInitShape<Desc>): MessageShape<Desc> {
  return fromBinary(desc, toBinary(desc, create(desc, message)));
}
