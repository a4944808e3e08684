/**
 * JSON through Connect's handlers with a codec of our own. They have no place to put one, but what they do have is
 * options for turning text into bytes and back. So a JSON method is, to Connect, one that takes and returns a
 * `google.protobuf.StringValue`: the JSON text as a JSON string. The quotes are put on and taken off where the bytes come
 * in and go out, and the codec runs around the implementation.
 */
import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import { type StringValue, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { JsonCodec } from "./json.ts";
import type { AnyMethodImpl } from "./methods.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** For Connect's `jsonOptions`; see `createJsonSerialization` in @connectrpc/connect. */
export const quotedText = {
  textDecoder: {
    decode(bytes: Uint8Array = new Uint8Array()): string {
      try {
        return JSON.stringify(utf8.decode(bytes));
      } catch (cause) {
        throw new ConnectError(
          "request is not JSON: it is not UTF-8",
          Code.InvalidArgument,
          undefined,
          undefined,
          cause,
        );
      }
    },
  },
  textEncoder: {
    encode(quoted = '""'): Uint8Array<ArrayBuffer> {
      return encoder.encode(JSON.parse(quoted) as string);
    },
  },
};

/** The method as Connect sees it. */
export function jsonMethod(method: DescMethod): DescMethod {
  return { ...method, input: StringValueSchema, output: StringValueSchema };
}

/** The implementation of {@link jsonMethod} by that of the method itself. */
export function jsonImpl(method: DescMethod, impl: AnyMethodImpl, codec: JsonCodec): AnyMethodImpl {
  const read = (text: StringValue): Message => codec.fromText(method.input, text.value);
  const write = (message: Message): StringValue =>
    create(StringValueSchema, { value: codec.toText(method.output, create(method.output, message)) });
  switch (method.methodKind) {
    case "unary":
      return async (request, context) =>
        write((await impl(read(request as StringValue), context)) as Message);
    case "client_streaming":
      return async (requests, context) =>
        write((await impl(each(requests as AsyncIterable<StringValue>, read), context)) as Message);
    case "server_streaming":
      return (request, context) =>
        each(impl(read(request as StringValue), context) as AsyncIterable<Message>, write);
    case "bidi_streaming":
      return (requests, context) => {
        const messages = each(requests as AsyncIterable<StringValue>, read);
        return each(impl(messages, context) as AsyncIterable<Message>, write);
      };
  }
}

async function* each<From, To>(source: AsyncIterable<From>, change: (value: From) => To): AsyncIterable<To> {
  for await (const value of source) yield change(value);
}
