/** Requests made from a message's descriptor, as JSON: one with every field filled, for tests that must know of every method there is. */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";

const MAX_DEPTH = 4;
const DIGEST = `sha256:${"5".repeat(64)}`;

/** Messages whose JSON is not an object of their fields. */
const WELL_KNOWN: Readonly<Record<string, unknown>> = {
  "google.protobuf.Any": {
    "@type": "types.containerd.io/opencontainers/runtime-spec/1/Spec",
    value: { ociVersion: "1.2.0" },
  },
  "google.protobuf.Timestamp": "2026-01-02T03:04:05Z",
  "google.protobuf.Duration": "1s",
  "google.protobuf.FieldMask": "labels",
  "google.protobuf.Empty": {},
};

/** A value for each field, the first of each oneof; text is "sample", or a digest where a digest belongs. */
export function sampleRequest(desc: DescMessage, depth = 0): unknown {
  const known = WELL_KNOWN[desc.typeName];
  if (known !== undefined) return known;
  const entries: [string, unknown][] = [];
  for (const field of desc.fields) {
    if (field.oneof !== undefined && field.oneof.fields[0] !== field) continue;
    if (field.message !== undefined && depth === MAX_DEPTH) continue;
    entries.push([field.jsonName, sampleField(field, depth)]);
  }
  return Object.fromEntries(entries);
}

function sampleField(field: DescField, depth: number): unknown {
  if (field.fieldKind === "list") return [sampleItem(field, depth)];
  if (field.fieldKind !== "map") return sampleItem(field, depth);
  const key = field.mapKey === ScalarType.STRING ? "sample" : "1";
  return { [key]: sampleItem(field, depth) };
}

function sampleItem(field: DescField, depth: number): unknown {
  if (field.message !== undefined) return sampleRequest(field.message, depth + 1);
  if (field.enum !== undefined) return (field.enum.values[1] ?? field.enum.values[0])?.name;
  return sampleScalar(field);
}

function sampleScalar(field: DescField): unknown {
  switch (field.scalar) {
    case ScalarType.STRING:
      return /digest|expected/.test(field.name) ? DIGEST : "sample";
    case ScalarType.BYTES:
      return "c2FtcGxl";
    case ScalarType.BOOL:
      return true;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return 0.5;
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return "1";
    default:
      return 1;
  }
}
