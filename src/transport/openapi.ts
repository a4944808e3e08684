/** The API as JSON over HTTP, for people and generators that read OpenAPI: every RPC as Connect serves it. */
import type { DescEnum, DescField, DescMessage, DescMethod, DescService } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";

/** A JSON Schema of draft 2020-12, or another part of the document. */
export type OpenApiObject = { readonly [name: string]: unknown };

export interface OpenApiInfo {
  readonly title: string;
  readonly version: string;
}

const HEADERS: OpenApiObject = {
  namespace: {
    name: "containerd-namespace",
    in: "header",
    description: "Needed by calls on what is in a namespace: containers, leases, sandboxes, images...",
    schema: { type: "string" },
  },
  lease: {
    name: "containerd-lease",
    in: "header",
    description: "Id of the lease that keeps what the call creates.",
    schema: { type: "string" },
  },
  timeout: {
    name: "connect-timeout-ms",
    in: "header",
    description: "Milliseconds after which the call ends with deadline_exceeded.",
    schema: { type: "integer", minimum: 0, maximum: 9_999_999_999 },
  },
};

const ENVELOPES =
  "A stream of messages, each behind 5 bytes: flags (0; 2 for the end-of-stream message, which holds error and " +
  "metadata as JSON) and the message's length, big-endian.";

/** An OpenAPI 3.1 document. Schemas follow protobuf's JSON mapping, and `connect/any.ts` and `connect/field-mask.ts`. */
export function openApiDocument(services: readonly DescService[], info: OpenApiInfo): OpenApiObject {
  const schemas = new Map<string, OpenApiObject>();
  const paths: [string, OpenApiObject][] = services.flatMap((service) =>
    service.methods.map((method) => [`/${service.typeName}/${method.name}`, pathOf(method, schemas)]),
  );
  return {
    openapi: "3.1.0",
    info: { ...info, description: "Served on a unix socket: curl --unix-socket PATH http://localhost/..." },
    servers: [{ url: "http://localhost" }],
    tags: services.map((service) => ({ name: service.typeName })),
    paths: Object.fromEntries(paths.sort(byName)),
    components: {
      parameters: HEADERS,
      responses: { error: { description: "The call failed.", content: json(ref("connect.Error")) } },
      schemas: Object.fromEntries([...schemas, ["connect.Error", ERROR] as const].sort(byName)),
    },
  };
}

function pathOf(method: DescMethod, schemas: Map<string, OpenApiObject>): OpenApiObject {
  const request = schemaOfMessage(method.input, schemas);
  const streams = method.methodKind !== "unary";
  const answer = {
    "200": {
      description: streams ? ENVELOPES : "The call succeeded.",
      content: streams
        ? stream(schemaOfMessage(method.output, schemas))
        : json(schemaOfMessage(method.output, schemas)),
    },
    ...(streams ? {} : { default: { $ref: "#/components/responses/error" } }),
  };
  const parameters = Object.keys(HEADERS).map((name) => ({ $ref: `#/components/parameters/${name}` }));
  const post = {
    operationId: `${method.parent.typeName}.${method.name}`,
    tags: [method.parent.typeName],
    ...(method.deprecated ? { deprecated: true } : {}),
    parameters,
    requestBody: { required: true, content: streams ? stream(request) : json(request) },
    responses: answer,
  };
  if (streams || method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS) return { post };
  const { requestBody: _, ...get } = { ...post, operationId: `${post.operationId}.get` };
  return { get: { ...get, parameters: [...parameters, ...queryOf(request)] }, post };
}

/** Source: https://connectrpc.com/docs/protocol#unary-get-request */
function queryOf(request: OpenApiObject): OpenApiObject[] {
  return [
    { name: "encoding", in: "query", required: true, schema: { const: "json" } },
    { name: "message", in: "query", required: true, content: json(request) },
    { name: "connect", in: "query", schema: { const: "v1" } },
  ];
}

function json(schema: OpenApiObject): OpenApiObject {
  return { "application/json": { schema } };
}

function stream(schema: OpenApiObject): OpenApiObject {
  return { "application/connect+json": { schema } };
}

function ref(name: string): OpenApiObject {
  return { $ref: `#/components/schemas/${name}` };
}

/** A reference to the message's schema, which is added to `schemas` with all it refers to. */
function schemaOfMessage(desc: DescMessage, schemas: Map<string, OpenApiObject>): OpenApiObject {
  if (!schemas.has(desc.typeName)) {
    // Before its fields, for messages that hold themselves.
    schemas.set(desc.typeName, {});
    schemas.set(desc.typeName, WELL_KNOWN[desc.typeName] ?? schemaOfFields(desc, schemas));
  }
  return ref(desc.typeName);
}

function schemaOfFields(desc: DescMessage, schemas: Map<string, OpenApiObject>): OpenApiObject {
  const oneofs = desc.oneofs.filter((oneof) => oneof.fields.length > 1);
  const choices = oneofs.map((oneof) => oneof.fields.map((field) => field.jsonName).join(", "));
  return {
    type: "object",
    ...(desc.deprecated ? { deprecated: true } : {}),
    ...(choices.length === 0 ? {} : { description: `At most one of: ${choices.join("; one of: ")}.` }),
    properties: Object.fromEntries(
      desc.fields.map((field) => [field.jsonName, schemaOfField(field, schemas)]),
    ),
    additionalProperties: false,
  };
}

function schemaOfField(field: DescField, schemas: Map<string, OpenApiObject>): OpenApiObject {
  const value = schemaOfValue(field, schemas);
  const deprecated = field.deprecated ? { deprecated: true } : {};
  if (field.fieldKind === "list") return { type: "array", items: value, ...deprecated };
  if (field.fieldKind === "map") return { type: "object", additionalProperties: value, ...deprecated };
  return { ...value, ...deprecated };
}

/** Of a field's value, a list's item or a map's value. */
function schemaOfValue(field: DescField, schemas: Map<string, OpenApiObject>): OpenApiObject {
  if (field.message !== undefined) return schemaOfMessage(field.message, schemas);
  if (field.enum !== undefined) return schemaOfEnum(field.enum, schemas);
  return SCALARS[field.scalar];
}

function schemaOfEnum(desc: DescEnum, schemas: Map<string, OpenApiObject>): OpenApiObject {
  const names = desc.values.map((value) => value.jsonName);
  schemas.set(desc.typeName, {
    anyOf: [
      { type: "string", enum: names },
      { type: "integer", format: "int32" },
    ],
  });
  return ref(desc.typeName);
}

const INT32: OpenApiObject = { type: "integer", format: "int32" };
const UINT32: OpenApiObject = { type: "integer", minimum: 0, maximum: 4_294_967_295 };
const INT64: OpenApiObject = { type: "string", format: "int64", pattern: "^-?[0-9]+$" };
const UINT64: OpenApiObject = { type: "string", format: "uint64", pattern: "^[0-9]+$" };
const DOUBLE: OpenApiObject = { anyOf: [{ type: "number" }, { enum: ["NaN", "Infinity", "-Infinity"] }] };

/** Source: protobuf's JSON mapping, https://protobuf.dev/programming-guides/json/ */
const SCALARS: Readonly<Record<ScalarType, OpenApiObject>> = {
  [ScalarType.INT32]: INT32,
  [ScalarType.SINT32]: INT32,
  [ScalarType.SFIXED32]: INT32,
  [ScalarType.UINT32]: UINT32,
  [ScalarType.FIXED32]: UINT32,
  [ScalarType.INT64]: INT64,
  [ScalarType.SINT64]: INT64,
  [ScalarType.SFIXED64]: INT64,
  [ScalarType.UINT64]: UINT64,
  [ScalarType.FIXED64]: UINT64,
  [ScalarType.FLOAT]: DOUBLE,
  [ScalarType.DOUBLE]: DOUBLE,
  [ScalarType.BOOL]: { type: "boolean" },
  [ScalarType.STRING]: { type: "string" },
  [ScalarType.BYTES]: { type: "string", contentEncoding: "base64" },
};

const WELL_KNOWN: Readonly<Record<string, OpenApiObject>> = {
  "google.protobuf.Any": {
    type: "object",
    description:
      "A message of a known type has its fields beside @type; JSON of another type stands under value, as it is; other bytes stand under base64.",
    properties: {
      "@type": { type: "string" },
      value: {},
      base64: { type: "string", contentEncoding: "base64" },
    },
    additionalProperties: true,
  },
  "google.protobuf.Timestamp": { type: "string", format: "date-time" },
  "google.protobuf.Duration": { type: "string", pattern: "^-?[0-9]+(\\.[0-9]{1,9})?s$" },
  "google.protobuf.FieldMask": {
    description: "Paths, separated by commas; or an object with them, where a path holds a comma.",
    anyOf: [
      { type: "string" },
      {
        type: "object",
        properties: { paths: { type: "array", items: { type: "string" } } },
        required: ["paths"],
      },
    ],
  },
};

const CODES = Object.values(Code).filter((code): code is Code => typeof code === "number");

/** Source: https://connectrpc.com/docs/protocol#error-codes */
const ERROR: OpenApiObject = {
  type: "object",
  properties: {
    code: { type: "string", enum: CODES.map(codeToString) },
    message: { type: "string" },
    details: {
      type: "array",
      items: {
        type: "object",
        properties: {
          type: { type: "string" },
          value: { type: "string", contentEncoding: "base64" },
          debug: {},
        },
        required: ["type", "value"],
      },
    },
  },
  required: ["code"],
};

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
