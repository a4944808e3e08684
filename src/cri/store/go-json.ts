import { create, type DescField, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { fail } from "../../model/errors.ts";

/*
 * JSON as Go's encoding/json reads and writes the structures of generated messages, which is not protobuf's own JSON: names as in the
 * .proto file, enums as numbers, 64 bit integers as numbers, whatever is empty left out. containerd keeps CRI's configurations so.
 */

export type GoValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | readonly GoValue[]
  | { readonly [key: string]: GoValue };

type Fields = Readonly<Record<string, unknown>>;

/** The message as a plain value for {@link goText}; fields in the order of the .proto file. */
export function toGo<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): GoValue {
  const source = message as unknown as Fields;
  const entries: [string, GoValue][] = [];
  for (const field of schema.fields) {
    const value = source[field.localName];
    if (!isEmpty(value)) entries.push([field.name, fieldToGo(field, value)]);
  }
  return Object.fromEntries(entries);
}

/** What `omitempty` leaves out. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === "" || value === 0 || value === 0n || value === false) return true;
  if (Array.isArray(value) || value instanceof Uint8Array) return value.length === 0;
  return (
    typeof value === "object" &&
    !("$typeName" in (value as object)) &&
    Object.keys(value as object).length === 0
  );
}

function fieldToGo(field: DescField, value: unknown): GoValue {
  switch (field.fieldKind) {
    case "message":
      return toGo(field.message, value as MessageShape<DescMessage>);
    case "list":
      return (value as unknown[]).map((item) =>
        field.listKind === "message"
          ? toGo(field.message, item as MessageShape<DescMessage>)
          : scalarToGo(item),
      );
    case "map":
      return sortedMap(value as Fields, (item) =>
        field.mapKind === "message"
          ? toGo(field.message, item as MessageShape<DescMessage>)
          : scalarToGo(item),
      );
    default:
      return scalarToGo(value);
  }
}

function scalarToGo(value: unknown): GoValue {
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : (value as GoValue);
}

function sortedMap(map: Fields, convert: (value: unknown) => GoValue): GoValue {
  const keys = Object.keys(map).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return Object.fromEntries(keys.map((key) => [key, convert(map[key])]));
}

/** The message that Go wrote so; names that it does not have are passed over. @throws InvalidArgument */
export function fromGo<Desc extends DescMessage>(schema: Desc, value: unknown): MessageShape<Desc> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw fail("InvalidArgument", `${schema.typeName} is no JSON object`);
  }
  const target: Record<string, unknown> = {};
  for (const field of schema.fields) {
    const found = (value as Fields)[field.name];
    if (Object.hasOwn(value, field.name) && found !== null)
      target[field.localName] = fieldFromGo(field, found);
  }
  return create(schema, target as never);
}

function fieldFromGo(field: DescField, value: unknown): unknown {
  switch (field.fieldKind) {
    case "message":
      return fromGo(field.message, value);
    case "enum":
      return Number(value);
    case "scalar":
      return scalarFromGo(field, value);
    case "list":
      return (value as unknown[]).map((item) =>
        field.listKind === "message" ? fromGo(field.message, item) : scalarFromGo(field, item),
      );
    default:
      return Object.fromEntries(
        Object.entries(value as Fields).map(([key, item]) => [
          key,
          field.mapKind === "message" ? fromGo(field.message, item) : scalarFromGo(field, item),
        ]),
      );
  }
}

/** The kinds of scalar that are not as JSON has them: protobuf's descriptor.proto numbers them. */
const INT64_TYPES: ReadonlySet<number> = new Set([3, 4, 6, 16, 18]);
const BYTES_TYPE = 12;

function scalarFromGo(field: DescField, value: unknown): unknown {
  const type = "scalar" in field ? field.scalar : undefined;
  if (type !== undefined && INT64_TYPES.has(type)) return BigInt(value as number | bigint);
  if (type === BYTES_TYPE) return new Uint8Array(Buffer.from(value as string, "base64"));
  return value;
}

/** JSON with integers of any size and the characters that Go escapes. */
export function goText(value: GoValue): string {
  const text = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === "bigint" ? JSON.rawJSON(item.toString()) : item,
  );
  return text.replaceAll(/[<>&\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
