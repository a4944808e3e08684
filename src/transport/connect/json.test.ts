import { describe, expect, test } from "bun:test";
import { create, createRegistry, type Message, toBinary } from "@bufbuild/protobuf";
import { AnySchema, anyPack, TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { ContainerCreateSchema } from "#gen/containerd/events/container_pb.ts";
import {
  ContainerSchema,
  CreateContainerRequestSchema,
  ListContainersResponseSchema,
  UpdateContainerRequestSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  PublishRequestSchema,
  SubscribeRequestSchema,
} from "#gen/containerd/services/events/v1/events_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { jsonCodec } from "./json.ts";
import { anyTypes } from "./types.ts";

const codec = jsonCodec(anyTypes);
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

const containerWith = (typeUrl: string, value: Uint8Array): Message =>
  create(ContainerSchema, { id: "web", labels: { a: "b" }, spec: { typeUrl, value } });

describe("Any", () => {
  const specs: readonly (readonly [string, string, Uint8Array, string])[] = [
    [
      "JSON inside goes through character by character",
      SPEC,
      bytes('{ "rlimit":18446744073709551615, "a":1.0, "b":"\\u003c", "a":2 }'),
      `{"id":"web","labels":{"a":"b"},"spec":{"@type":"${SPEC}","value":{ "rlimit":18446744073709551615, "a":1.0, "b":"\\u003c", "a":2 }}}`,
    ],
    ["JSON that is a string", "x/Y", bytes('"CgNmb28="'), '"spec":{"@type":"x/Y","value":"CgNmb28="}'],
    ["JSON null", "x/Y", bytes("null"), '"spec":{"@type":"x/Y","value":null}'],
    ["no JSON and no known type", "x/Y", Uint8Array.of(255, 0), '"spec":{"@type":"x/Y","base64":"/wA="}'],
    ["a byte order mark is no JSON", "x/Y", bytes("\ufeff{}"), '"base64":"77u/e30="'],
    ["an empty payload", "x/Y", new Uint8Array(), '"spec":{"@type":"x/Y"}'],
    ["nothing at all", "", new Uint8Array(), '"spec":{}'],
    ["no type url", "", bytes("{}"), '"spec":{"@type":"","value":{}}'],
    [
      "a known type, its url as it was",
      "containerd.events.ContainerCreate",
      toBinary(ContainerCreateSchema, create(ContainerCreateSchema, { id: "x", image: "i" })),
      '"spec":{"@type":"containerd.events.ContainerCreate","id":"x","image":"i"}',
    ],
    [
      "a known type's empty message",
      "containerd.events.ContainerCreate",
      new Uint8Array(),
      '"spec":{"@type":"containerd.events.ContainerCreate"}',
    ],
    [
      "a known type with a JSON of its own",
      "type.googleapis.com/google.protobuf.Timestamp",
      toBinary(TimestampSchema, create(TimestampSchema, { seconds: 1n })),
      '"value":"1970-01-01T00:00:01Z"',
    ],
    [
      "bytes that are no message of their known type",
      "containerd.events.ContainerCreate",
      bytes('{"id": 1}'),
      '"spec":{"@type":"containerd.events.ContainerCreate","base64":"eyJpZCI6IDF9"}',
    ],
  ];
  for (const [name, typeUrl, value, text] of specs) {
    test(`${name}: written, and read back to the same bytes`, () => {
      const message = containerWith(typeUrl, value);
      const json = codec.toText(ContainerSchema, message);
      expect(json).toContain(text);
      JSON.parse(json);
      expect(codec.fromText(ContainerSchema, json)).toEqual(message);
    });
  }

  test("any url and any bytes come back, but for white space around JSON", () => {
    const payload = fc.oneof(fc.uint8Array(), fc.json().map(bytes));
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), payload, (typeUrl, value) => {
        const message = containerWith(typeUrl, new Uint8Array(value));
        const json = codec.toText(ContainerSchema, message);
        if (/^[ \t\r\n]|[ \t\r\n]$/.test(new TextDecoder().decode(value))) return;
        expect(codec.fromText(ContainerSchema, json)).toEqual(message);
      }),
      { numRuns: 2000 },
    );
  });

  test("in maps, lists and Anys in Anys", () => {
    const inner = anyPack(ContainerCreateSchema, create(ContainerCreateSchema, { id: "x" }));
    const envelope = create(EnvelopeSchema, { topic: "/t", event: inner });
    const message = create(ListContainersResponseSchema, {
      containers: [
        {
          id: "a",
          extensions: {
            __proto__x: { typeUrl: "x/Y", value: bytes("[1]") },
            e: anyPack(EnvelopeSchema, envelope),
          },
        },
        { id: "b" },
      ],
    });
    const json = codec.toText(ListContainersResponseSchema, message);
    expect(json).toBe(
      '{"containers":[{"id":"a","extensions":{"__proto__x":{"@type":"x/Y","value":[1]},' +
        '"e":{"@type":"type.googleapis.com/containerd.types.Envelope","topic":"/t","event":' +
        '{"@type":"type.googleapis.com/containerd.events.ContainerCreate","id":"x"}}}},{"id":"b"}]}',
    );
    expect(codec.fromText(ListContainersResponseSchema, json)).toEqual(message);
  });

  test("Anys nested without end stop somewhere, both ways", () => {
    let any = create(AnySchema, { typeUrl: "google.protobuf.Any" });
    for (let depth = 0; depth < 50; depth++) any = anyPack(AnySchema, any);
    const json = codec.toText(AnySchema, any);
    expect(codec.fromText(AnySchema, json)).toEqual(any);
    const deep = `${'{"@type":"google.protobuf.Any","value":'.repeat(100_000)}{}${"}".repeat(100_000)}`;
    expect(() => codec.fromText(AnySchema, deep)).toThrow("more than 32 Anys within each other");
  });
});

describe("FieldMask", () => {
  const read = (mask: string): string[] => {
    const request = codec.fromText(UpdateContainerRequestSchema, `{"updateMask":${mask}}`) as Message & {
      updateMask: { paths: string[] };
    };
    return request.updateMask.paths;
  };
  test("names are camelCase, what is behind the dot stays", () => {
    expect(read('"labels.my_Key,snapshotKey"')).toEqual(["labels.my_Key", "snapshot_key"]);
    expect(read('""')).toEqual([]);
    expect(read('{"paths":["labels.a,b"]}')).toEqual(["labels.a,b"]);
  });
  test("written so that it reads back", () => {
    for (const paths of [["labels.my_Key", "snapshot_key"], ["labels.a,b"], []]) {
      const message = create(UpdateContainerRequestSchema, { updateMask: { paths } });
      const json = codec.toText(UpdateContainerRequestSchema, message);
      expect(codec.fromText(UpdateContainerRequestSchema, json)).toEqual(message);
    }
  });
});

test("integers of 64 bits stay exact, as numbers and as strings", () => {
  const types = createRegistry();
  for (const size of ["18446744073709551615", '"18446744073709551615"']) {
    const json = `{"id":"c","sandbox":"s","createdAt":"2026-01-02T03:04:05.123456789Z","spec":{"@type":"u","value":${size}}}`;
    expect(codec.toText(ContainerSchema, codec.fromText(ContainerSchema, json))).toContain(`"value":${size}`);
  }
  expect(jsonCodec(types).fromText(MountSchema, "{}")).toEqual(create(MountSchema));
});

describe("bad input says what and where", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", "request is not JSON: the body is empty, an empty message is {}"],
    [
      '{"container": {id: 1}}',
      'request is not JSON: line 1, column 16: expected a name in double quotes, found "id"',
    ],
    ["[]", "request: expected an object, got array"],
    ['{"container": 7}', "container: expected an object, got number"],
    ['{"container": {"id": 12345678901234567890}}', "container: cannot decode field"],
    ['{"container": {"nope": 1}}', 'key "nope" is unknown'],
    ['{"containerr": {}}', 'key "containerr" is unknown'],
    ['{"container": {"labels": []}}', "labels from JSON: expected object, got"],
    ['{"container": {"id": "a", "id": "b"}}', 'duplicate object key "id"'],
    ['{"container": {}, "container": {}}', "container: is there twice"],
    ['{"container": {"spec": "x"}}', 'container.spec: expected an object with "@type", got string'],
    ['{"container": {"spec": {"value": 1}}}', 'container.spec: "@type" must be there and a string'],
    ['{"container": {"spec": {"@type": "a/B", "x": 1}}}', 'container.spec: key "x" is unknown'],
    ['{"container": {"spec": {"@type": "a/B", "base64": "*"}}}', "container.spec.base64: not base64"],
    [
      '{"container": {"extensions": {"k": {"@type": "a/B", "x": 1}}}}',
      'container.extensions["k"]: key "x" is unknown',
    ],
    ['{"container": {"extensions": []}}', "container.extensions: expected object, got array"],
    [
      '{"container": {"spec": {"@type": "containerd.types.Mount", "nope": 1}}}',
      "container.spec: cannot decode message containerd.types.Mount",
    ],
  ];
  for (const [text, message] of cases) {
    test(text || "nothing", () => {
      expect(() => codec.fromText(CreateContainerRequestSchema, text)).toThrow(message);
      expect(() => codec.fromText(CreateContainerRequestSchema, text)).toThrow(
        expect.objectContaining({ code: "InvalidArgument" }),
      );
    });
  }
  test("null leaves a field unset", () => {
    expect(codec.fromText(CreateContainerRequestSchema, '{"container":null}')).toEqual(
      create(CreateContainerRequestSchema),
    );
    expect(codec.fromText(SubscribeRequestSchema, '{"filters":null}')).toEqual(
      create(SubscribeRequestSchema),
    );
    expect(codec.fromText(PublishRequestSchema, '{"topic":"/a","event":null}')).toEqual(
      create(PublishRequestSchema, { topic: "/a" }),
    );
  });
});
