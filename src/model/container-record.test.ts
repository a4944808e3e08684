import { expect, test } from "bun:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { ContainerSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { encodeAny } from "./any-bytes.ts";
import { type ContainerRecord, recordOf, recordOfWire } from "./container-record.ts";

const text = fc.oneof(
  { weight: 30, arbitrary: fc.string({ maxLength: 12, unit: "grapheme-ascii" }) },
  { weight: 10, arbitrary: fc.constantFrom("", "web", "__proto__") },
  { weight: 1, arbitrary: fc.constant("ü") },
);
const any = fc.record({ typeUrl: text, value: fc.uint8Array({ maxLength: 300 }) });
const containers: fc.Arbitrary<MessageInitShape<typeof ContainerSchema>> = fc.record(
  {
    id: text,
    labels: fc.dictionary(text, text),
    image: text,
    runtime: fc.record({ name: text, options: any }, { requiredKeys: [] }),
    spec: any,
    snapshotter: text,
    snapshotKey: text,
    extensions: fc.dictionary(text, any),
    sandbox: text,
  },
  { requiredKeys: [] },
);

/** What the message would become. @throws if it is malformed */
function decoded(bytes: Uint8Array): unknown {
  return plain(recordOf(fromBinary(ContainerSchema, bytes)));
}

/** In the order of keys, and bytes as text, to compare. */
function plain(record: ContainerRecord): unknown {
  const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString("hex");
  const entries = (of: ContainerRecord["labels"]) => of.map((entry) => entry.map(hex).join("=")).sort();
  const { id, runtimeName, runtimeOptions, spec, image, snapshotter, snapshotKey, sandbox } = record;
  const rest = [runtimeName, runtimeOptions, spec, image, snapshotter, snapshotKey, sandbox].map(hex);
  return [id, rest, entries(record.labels), entries(record.extensions), record.createdAt, record.updatedAt];
}

test("what is read off the wire is what the message says", () => {
  let read = 0;
  fc.assert(
    fc.property(containers, (fields) => {
      const bytes = toBinary(ContainerSchema, create(ContainerSchema, fields));
      const record = recordOfWire(bytes);
      if (record === undefined) return;
      read++;
      expect(plain(record)).toEqual(decoded(bytes));
    }),
    { numRuns: 400 },
  );
  expect(read).toBeGreaterThan(50);
});

test("bytes that are no container, or an uncommon one, are left to protobuf or read as it does", () => {
  const change = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.nat(9) });
  fc.assert(
    fc.property(containers, fc.array(change, { minLength: 1, maxLength: 3 }), (fields, changes) => {
      let bytes = toBinary(ContainerSchema, create(ContainerSchema, fields));
      for (const { at, byte, cut } of changes) {
        if (bytes.length > 0) bytes[at % bytes.length] = byte;
        if (cut === 0) bytes = bytes.slice(0, at % (bytes.length + 1));
        if (cut === 1) bytes = Buffer.concat([bytes, bytes.subarray(at % (bytes.length + 1))]);
      }
      const record = recordOfWire(bytes);
      if (record !== undefined) expect(plain(record)).toEqual(decoded(bytes));
    }),
    { numRuns: 1500 },
  );
});

const bytesOf = (fields: MessageInitShape<typeof ContainerSchema>): Uint8Array =>
  toBinary(ContainerSchema, create(ContainerSchema, fields));

test("a container as clients write it is read without a message", () => {
  const value = new Uint8Array(5000).fill(200);
  const fields = {
    id: "web",
    labels: { a: "1", empty: "" },
    image: "busybox",
    runtime: { name: "runc", options: { typeUrl: "o", value: Uint8Array.of(1) } },
    spec: { typeUrl: "types.containerd.io/x", value },
    extensions: { e: { typeUrl: "t", value } },
  };
  const record = recordOfWire(bytesOf(fields));
  expect(record && plain(record)).toEqual(plain(recordOf(create(ContainerSchema, fields))));
});

test("left to the message: fields twice, times, texts beyond ASCII, keys twice, too many entries, Any in another order", () => {
  const web = bytesOf({ id: "web" });
  const label = bytesOf({ labels: { a: "1" } });
  const labels = Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`k${n}`, "v"]));
  const turned = Uint8Array.of(0x2a, 6, 0x12, 1, 7, 0x0a, 1, 0x61);
  expect(decoded(turned)).toBeDefined();
  const odd = [
    Buffer.concat([web, web]),
    Buffer.concat([label, label]),
    bytesOf({ createdAt: { seconds: 1n } }),
    bytesOf({ id: "ü" }),
    bytesOf({ labels }),
    turned,
    Uint8Array.of(0x2a, 2, 0x0a, 0),
    Uint8Array.of(0x08, 1),
    Uint8Array.of(0x0a, 5, 0x61),
  ];
  for (const bytes of odd) expect(recordOfWire(bytes)).toBeUndefined();
});

test("an Any's bytes are protobuf's", () => {
  for (const length of [0, 1, 127, 128, 16_383, 16_384, 2_100_000]) {
    for (const typeUrl of ["", "ü", "t".repeat(200)]) {
      const message = create(AnySchema, { typeUrl, value: new Uint8Array(length).fill(7) });
      expect(Buffer.compare(encodeAny(message), toBinary(AnySchema, message))).toBe(0);
    }
  }
});
