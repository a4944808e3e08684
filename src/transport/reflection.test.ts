import { expect, test } from "bun:test";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { reflectionBindings } from "./reflection.ts";
import { bind } from "./registry.ts";

type Request = ServerReflectionRequest["messageRequest"];

/** Asks on one stream; answers per request. */
async function ask(...requests: Request[]): Promise<ServerReflectionResponse["messageResponse"][]> {
  const [v1] = reflectionBindings([bind(Containers, {})]);
  const transport = createRouterTransport(({ service }) => {
    service(ServerReflection, v1?.implementation as object);
  });
  async function* sent() {
    for (const messageRequest of requests) yield { host: "h", messageRequest };
  }
  const answers: ServerReflectionResponse["messageResponse"][] = [];
  for await (const answer of createClient(ServerReflection, transport).serverReflectionInfo(sent())) {
    expect(answer.validHost).toBe("h");
    expect(answer.originalRequest?.messageRequest.case).toBe(requests[answers.length]?.case);
    answers.push(answer.messageResponse);
  }
  return answers;
}

function filesOf(answer: ServerReflectionResponse["messageResponse"] | undefined): string[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`no files: ${answer?.case}`);
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
}

test("services are listed by name, reflection's own among them", async () => {
  const [listed] = await ask({ case: "listServices", value: "" });
  expect(listed?.value).toMatchObject({
    service: [
      { name: "containerd.services.containers.v1.Containers" },
      { name: "grpc.reflection.v1.ServerReflection" },
      { name: "grpc.reflection.v1alpha.ServerReflection" },
    ],
  });
});

test("every kind of symbol leads to its file and all it needs, each sent once a stream", async () => {
  const prefix = "containerd.services.containers.v1.";
  const containers = "containerd/services/containers/v1/containers.proto";
  const [service, ...again] = await ask(
    { case: "fileContainingSymbol", value: `${prefix}Containers` },
    { case: "fileContainingSymbol", value: `${prefix}Containers.Get` },
    { case: "fileContainingSymbol", value: `${prefix}Container.Runtime.options` },
    { case: "fileByFilename", value: containers },
  );
  const first = filesOf(service);
  expect(first[0]).toBe(containers);
  expect(first).toContain("google/protobuf/any.proto");
  expect(new Set(first).size).toBe(first.length);
  expect(again.map(filesOf)).toEqual([[containers], [containers], [containers]]);
  const [value] = await ask({ case: "fileContainingSymbol", value: "google.protobuf.FieldMask.paths" });
  expect(filesOf(value)).toEqual(["google/protobuf/field_mask.proto"]);
});

test("what is not there is NotFound, and the stream goes on", async () => {
  const answers = await ask(
    { case: "fileContainingSymbol", value: "no.such" },
    { case: "fileByFilename", value: "no.proto" },
    {
      case: "fileContainingExtension",
      value: { $typeName: "grpc.reflection.v1.ExtensionRequest", containingType: "x", extensionNumber: 1 },
    },
    { case: "allExtensionNumbersOfType", value: "no.Type" },
    { case: "allExtensionNumbersOfType", value: "google.protobuf.Any" },
  );
  expect(answers.slice(0, 4).map((answer) => answer.value)).toMatchObject([
    { errorCode: 5, errorMessage: 'symbol "no.such": not found' },
    { errorCode: 5, errorMessage: 'file "no.proto": not found' },
    { errorCode: 5, errorMessage: 'extension 1 of "x": not found' },
    { errorCode: 5, errorMessage: 'type "no.Type": not found' },
  ]);
  expect(answers[4]).toMatchObject({
    case: "allExtensionNumbersResponse",
    value: { baseTypeName: "google.protobuf.Any", extensionNumber: [] },
  });
});

test("v1alpha answers the same", async () => {
  const [, v1alpha] = reflectionBindings([bind(Containers, {})]);
  const transport = createRouterTransport(({ service }) => {
    service(ServerReflectionAlpha, v1alpha?.implementation as object);
  });
  async function* sent() {
    yield { messageRequest: { case: "fileContainingSymbol" as const, value: "google.protobuf.Any" } };
  }
  for await (const answer of createClient(ServerReflectionAlpha, transport).serverReflectionInfo(sent())) {
    expect(answer.$typeName).toBe("grpc.reflection.v1alpha.ServerReflectionResponse");
    expect(answer.messageResponse.case).toBe("fileDescriptorResponse");
  }
});
