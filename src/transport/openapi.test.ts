import { describe, expect, test } from "bun:test";
import {
  create,
  type DescField,
  type DescMessage,
  type DescService,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { AnySchema, FieldMaskSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { ImageService, RuntimeService } from "#gen/runtime/v1/api_pb.ts";
import { jsonCodec } from "./connect/json.ts";
import { anyTypes } from "./connect/types.ts";
import { type OpenApiObject, openApiDocument } from "./openapi.ts";

const SERVICES: readonly DescService[] = [
  Containers,
  Content,
  Events,
  Introspection,
  Health,
  ServerReflection,
  RuntimeService,
  ImageService,
];
const document = openApiDocument(SERVICES, { title: "bunkerd", version: "1" });
const components = document["components"] as { schemas: Record<string, OpenApiObject> };

function* nodesOf(value: unknown): Iterable<OpenApiObject> {
  if (value === null || typeof value !== "object") return;
  if (!Array.isArray(value)) yield value as OpenApiObject;
  for (const child of Object.values(value)) yield* nodesOf(child);
}

function resolve(pointer: string): unknown {
  return pointer
    .slice(2)
    .split("/")
    .reduce<unknown>((node, name) => (node as OpenApiObject | undefined)?.[name], document);
}

/** What in `value` the schema forbids: as much of JSON Schema as the document uses. */
function violations(value: unknown, schema: OpenApiObject, path: string): string[] {
  if (typeof schema["$ref"] === "string")
    return violations(value, resolve(schema["$ref"]) as OpenApiObject, path);
  const anyOf = schema["anyOf"] as OpenApiObject[] | undefined;
  if (anyOf !== undefined) {
    const best = anyOf.map((one) => violations(value, one, path)).sort((a, b) => a.length - b.length);
    return best[0] ?? [];
  }
  const found: string[] = [];
  const whole = Number.isInteger(value) && schema["type"] !== "number";
  const kind = Array.isArray(value) ? "array" : whole ? "integer" : typeof value;
  if (schema["type"] !== undefined && schema["type"] !== kind)
    found.push(`${path}: ${kind}, not ${schema["type"]}`);
  const values = schema["enum"] as unknown[] | undefined;
  if (values !== undefined && !values.includes(value)) found.push(`${path}: not one of ${values.join()}`);
  if (typeof schema["pattern"] === "string" && !new RegExp(schema["pattern"]).test(String(value)))
    found.push(path);
  if (kind === "array") {
    const items = (schema["items"] ?? {}) as OpenApiObject;
    found.push(...(value as unknown[]).flatMap((item, at) => violations(item, items, `${path}[${at}]`)));
  }
  if (kind === "object") {
    const properties = (schema["properties"] ?? {}) as Record<string, OpenApiObject>;
    for (const [name, item] of Object.entries(value as object)) {
      const rest = schema["additionalProperties"];
      const own = properties[name] ?? (typeof rest === "object" ? (rest as OpenApiObject) : undefined);
      if (own !== undefined) found.push(...violations(item, own, `${path}.${name}`));
      else if (rest === false) found.push(`${path}.${name}: no such property`);
    }
  }
  return found;
}

/** A message with every field set, as deep as `depth`. */
function filled(desc: DescMessage, depth: number): Message {
  if (desc.typeName === AnySchema.typeName) {
    return create(AnySchema, { typeUrl: "x/Y", value: new TextEncoder().encode('{"a":[1]}') });
  }
  if (desc.typeName === TimestampSchema.typeName) return create(TimestampSchema, { seconds: 7n, nanos: 5 });
  if (desc.typeName === FieldMaskSchema.typeName) return create(FieldMaskSchema, { paths: ["a.b"] });
  const message = create(desc) as unknown as Record<string, unknown>;
  for (const field of desc.fields) {
    const value = sampleOf(field, depth);
    if (value === undefined) continue;
    if (field.oneof !== undefined) message[field.oneof.localName] = { case: field.localName, value };
    else if (field.fieldKind === "list") message[field.localName] = [value];
    else if (field.fieldKind === "map") message[field.localName] = { k: value };
    else message[field.localName] = value;
  }
  return message as unknown as Message;
}

function sampleOf(field: DescField, depth: number): unknown {
  if (field.message !== undefined) return depth === 0 ? undefined : filled(field.message, depth - 1);
  if (field.enum !== undefined) return field.enum.values.at(-1)?.number;
  switch (field.scalar) {
    case ScalarType.STRING:
      return "text";
    case ScalarType.BYTES:
      return Uint8Array.of(1);
    case ScalarType.BOOL:
      return true;
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return 9007199254740993n;
    default:
      return 3;
  }
}

describe("openApiDocument", () => {
  test("every reference resolves", () => {
    const references = [...nodesOf(document)].flatMap((node) =>
      typeof node["$ref"] === "string" ? [node["$ref"]] : [],
    );
    expect(references.length).toBeGreaterThan(500);
    expect(references.filter((pointer) => resolve(pointer) === undefined)).toEqual([]);
  });

  test("every RPC is there, by GET where it only reads", () => {
    const paths = document["paths"] as Record<string, Record<string, OpenApiObject>>;
    const methods = SERVICES.flatMap((service) => service.methods);
    expect(Object.keys(paths).length).toBe(methods.length);
    for (const method of methods) {
      const path = paths[`/${method.parent.typeName}/${method.name}`];
      expect(path?.["post"]?.["operationId"]).toBe(`${method.parent.typeName}.${method.name}`);
    }
    const gettable = (service: DescService): string[] =>
      service.methods
        .map((method) => method.name)
        .filter((name) => paths[`/${service.typeName}/${name}`]?.["get"]);
    expect(gettable(Containers)).toEqual(["Get", "List"]);
    expect(gettable(ImageService)).toEqual(["ListImages", "ImageStatus", "ImageFsInfo"]);
  });

  test("operation ids are unique", () => {
    const ids = [...nodesOf(document["paths"])].flatMap((node) => node["operationId"] ?? []);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("component names are allowed ones", () => {
    expect(Object.keys(components.schemas).filter((name) => !/^[\w.-]+$/.test(name))).toEqual([]);
  });

  test("it is JSON", () => {
    expect(JSON.parse(JSON.stringify(document))).toEqual(document as object);
  });

  const codec = jsonCodec(anyTypes);
  for (const service of SERVICES) {
    test(`what ${service.typeName} says and hears fits its schemas`, () => {
      for (const desc of service.methods.flatMap((method) => [method.input, method.output])) {
        const value = JSON.parse(codec.toText(desc, filled(desc, 6))) as unknown;
        const schema = components.schemas[desc.typeName];
        expect(schema).toBeDefined();
        expect(violations(value, schema ?? {}, desc.typeName)).toEqual([]);
      }
    });
  }

  test("the check of the schemas checks", () => {
    const schema = components.schemas["containerd.services.containers.v1.Container"] ?? {};
    expect(violations({ id: 7, nope: 1, createdAt: {} }, schema, "c").length).toBe(3);
  });
});
