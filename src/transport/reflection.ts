import {
  type DescEnum,
  type DescFile,
  type DescMessage,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { BunkerdError, quote } from "../model/errors.ts";
import { bind, type ServiceBinding } from "./registry.ts";

type Response = MessageInitShape<typeof ServerReflectionResponseSchema>;
type Answer = NonNullable<Response["messageResponse"]>;

/**
 * `grpc.reflection.v1` and `v1alpha` over these bindings' descriptors, and their own. Clients such as `buf curl` and grpcurl
 * then need no proto files. Behaves as grpc-go's `reflection/internal/reflection.go`.
 */
export function reflectionBindings(bindings: readonly ServiceBinding[]): readonly ServiceBinding[] {
  const services = [...bindings.map((binding) => binding.service), ServerReflection, ServerReflectionAlpha];
  let made: SymbolIndex | undefined;
  const serverReflectionInfo = (requests: AsyncIterable<ServerReflectionRequest>) => {
    made ??= indexOf(services.map((service) => service.file));
    return answerAll(requests, services.map((service) => service.typeName).sort(), made);
  };
  const v1 = bind(ServerReflection, { serverReflectionInfo });
  // The messages of both versions have the same fields; only their names differ.
  const v1alpha = bind(ServerReflectionAlpha, { serverReflectionInfo: serverReflectionInfo as never });
  return [v1, v1alpha];
}

async function* answerAll(
  requests: AsyncIterable<ServerReflectionRequest>,
  services: readonly string[],
  index: SymbolIndex,
): AsyncGenerator<Response> {
  // A file that this stream has had is not sent again as someone's dependency.
  const sent = new Set<string>();
  for await (const request of requests) {
    const messageResponse = answer(request, services, index, sent);
    yield { validHost: request.host, originalRequest: request, messageResponse };
  }
}

function answer(
  { messageRequest: request }: ServerReflectionRequest,
  services: readonly string[],
  index: SymbolIndex,
  sent: Set<string>,
): Answer {
  switch (request.case) {
    case "listServices":
      return { case: "listServicesResponse", value: { service: services.map((name) => ({ name })) } };
    case "fileByFilename":
      return filesAnswer(index.files.get(request.value), `file ${quote(request.value)}`, sent);
    case "fileContainingSymbol":
      return filesAnswer(index.symbols.get(request.value), `symbol ${quote(request.value)}`, sent);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const file = index.extensions.get(containingType)?.get(extensionNumber);
      return filesAnswer(file, `extension ${extensionNumber} of ${quote(containingType)}`, sent);
    }
    case "allExtensionNumbersOfType": {
      const extensions = index.extensions.get(request.value);
      if (extensions === undefined && !index.messages.has(request.value)) {
        return notFound(`type ${quote(request.value)}`);
      }
      const extensionNumber = [...(extensions?.keys() ?? [])].sort((a, b) => a - b);
      const value = { baseTypeName: request.value, extensionNumber };
      return { case: "allExtensionNumbersResponse", value };
    }
    default:
      throw new BunkerdError("InvalidArgument", "invalid MessageRequest: no request is set");
  }
}

function notFound(what: string): Answer {
  return { case: "errorResponse", value: { errorCode: Code.NotFound, errorMessage: `${what}: not found` } };
}

/** The file, always, and what it needs transitively, as far as the stream has not had it. */
function filesAnswer(file: DescFile | undefined, what: string, sent: Set<string>): Answer {
  if (file === undefined) return notFound(what);
  const wanted = new Set<DescFile>([file]);
  const fileDescriptorProto: Uint8Array[] = [];
  for (const next of wanted) {
    if (next === file || !sent.has(next.proto.name)) {
      sent.add(next.proto.name);
      fileDescriptorProto.push(toBinary(FileDescriptorProtoSchema, next.proto));
    }
    for (const dependency of next.dependencies) wanted.add(dependency);
  }
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

/** Where every name is declared: packages' messages, fields, oneofs, enums, values, services, methods, extensions. */
interface SymbolIndex {
  readonly files: Map<string, DescFile>;
  readonly symbols: Map<string, DescFile>;
  readonly messages: Set<string>;
  /** By extended type and field number. */
  readonly extensions: Map<string, Map<number, DescFile>>;
}

function indexOf(roots: readonly DescFile[]): SymbolIndex {
  const index: SymbolIndex = {
    files: new Map(),
    symbols: new Map(),
    messages: new Set(),
    extensions: new Map(),
  };
  const files = new Set(roots);
  for (const file of files) {
    for (const dependency of file.dependencies) files.add(dependency);
    index.files.set(file.proto.name, file);
    for (const message of file.messages) addMessage(index, file, message);
    for (const enumeration of file.enums) addEnum(index, file, enumeration);
    for (const extension of file.extensions) addExtension(index, file, extension);
    for (const service of file.services) {
      index.symbols.set(service.typeName, file);
      for (const method of service.methods) index.symbols.set(`${service.typeName}.${method.name}`, file);
    }
  }
  return index;
}

function addMessage(index: SymbolIndex, file: DescFile, message: DescMessage): void {
  index.symbols.set(message.typeName, file);
  index.messages.add(message.typeName);
  for (const field of message.fields) index.symbols.set(`${message.typeName}.${field.name}`, file);
  for (const oneof of message.oneofs) index.symbols.set(`${message.typeName}.${oneof.name}`, file);
  for (const nested of message.nestedMessages) addMessage(index, file, nested);
  for (const nested of message.nestedEnums) addEnum(index, file, nested);
  for (const nested of message.nestedExtensions) addExtension(index, file, nested);
}

/** An enum's values are its siblings by name (protobuf's scoping rule). */
function addEnum(index: SymbolIndex, file: DescFile, enumeration: DescEnum): void {
  index.symbols.set(enumeration.typeName, file);
  const scope = enumeration.typeName.slice(0, enumeration.typeName.lastIndexOf(".") + 1);
  for (const value of enumeration.values) index.symbols.set(`${scope}${value.name}`, file);
}

function addExtension(index: SymbolIndex, file: DescFile, extension: DescFile["extensions"][number]): void {
  index.symbols.set(extension.typeName, file);
  const extended = extension.extendee.typeName;
  const numbers = index.extensions.get(extended) ?? new Map<number, DescFile>();
  numbers.set(extension.number, file);
  index.extensions.set(extended, numbers);
}
