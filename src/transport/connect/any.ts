/**
 * How a `google.protobuf.Any` is written in JSON. protobuf-es, like every protobuf library, refuses types that it does
 * not know, and containerd's specs and extensions are such: Go values as JSON under a type url (containerd/typeurl).
 *
 *  - a known message type: its fields beside `@type`, as protobuf's own JSON rule has it
 *  - a payload that is JSON: `{"@type": "...", "value": <that JSON>}`, character by character
 *  - anything else: `{"@type": "...", "base64": "..."}`
 *
 * What was written reads back to the same type url and, but for a known type's encoding order and white space around a
 * JSON payload, to the same bytes.
 */
import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type Registry,
  toBinary,
} from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { fail, quote } from "../../model/errors.ts";
import { kindOf, membersOf } from "./json-text.ts";

/** How messages are written and read, at a depth of so many Anys. */
export interface MessageText {
  /** The messages that an Any may hold as fields rather than as bytes. */
  readonly types: Registry;
  write(desc: DescMessage, message: Message, depth: number): string;
  read(desc: DescMessage, text: string, path: string, depth: number): Message;
}

/** Anys within Anys: more is an attack, not a message. */
const MAX_DEPTH = 32;

/** Their JSON is no object, or not theirs: it stands under `value`. Source: protobuf's JSON mapping, "Any". */
const UNDER_VALUE =
  /^google\.protobuf\.(?:Any|Timestamp|Duration|FieldMask|Struct|(?:List|Bool|Bytes|Double|Float|U?Int32|U?Int64|String)?Value)$/;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export function anyToText(any: Any, messages: MessageText, depth: number): string {
  if (any.typeUrl === "" && any.value.length === 0) return "{}";
  const head = `{"@type":${JSON.stringify(any.typeUrl)}`;
  const known = messages.types.getMessage(nameOf(any.typeUrl));
  const fields =
    known === undefined ? jsonPayload(any.value) : knownFields(known, any.value, messages, depth);
  if (fields === undefined) return `${head},"base64":${JSON.stringify(base64Encode(any.value))}}`;
  return fields === "" ? `${head}}` : `${head},${fields}}`;
}

/** Undefined for bytes that are no message of that type, or none that JSON can hold. */
function knownFields(
  desc: DescMessage,
  bytes: Uint8Array,
  messages: MessageText,
  depth: number,
): string | undefined {
  if (depth >= MAX_DEPTH) return undefined;
  try {
    const text = messages.write(desc, fromBinary(desc, bytes), depth + 1);
    return UNDER_VALUE.test(desc.typeName) ? `"value":${text}` : text.slice(1, -1);
  } catch {
    return undefined;
  }
}

/** Undefined for bytes that are no JSON. */
function jsonPayload(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return "";
  try {
    const text = utf8.decode(bytes);
    JSON.parse(text);
    return `"value":${text}`;
  } catch {
    return undefined;
  }
}

/** @param text well-formed JSON @throws InvalidArgument that begins with `path` */
export function anyFromText(text: string, messages: MessageText, path: string, depth: number): Any {
  if (kindOf(text) !== "object") {
    throw fail("InvalidArgument", `${path}: expected an object with "@type", got ${kindOf(text)}`);
  }
  if (depth > MAX_DEPTH) {
    throw fail("InvalidArgument", `${path}: more than ${MAX_DEPTH} Anys within each other`);
  }
  const members = new Map<string, string>();
  for (const member of membersOf(text)) {
    if (members.has(member.key))
      throw fail("InvalidArgument", `${path}: key ${quote(member.key)} is there twice`);
    members.set(member.key, member.text);
  }
  if (members.size === 0) return create(AnySchema);
  const type = members.get("@type");
  members.delete("@type");
  if (type === undefined || kindOf(type) !== "string") {
    throw fail("InvalidArgument", `${path}: "@type" must be there and a string`);
  }
  const typeUrl = JSON.parse(type) as string;
  const known = messages.types.getMessage(nameOf(typeUrl));
  const bytes = members.get("base64");
  if (
    bytes !== undefined &&
    members.size === 1 &&
    known?.fields.some((field) => field.jsonName === "base64") !== true
  ) {
    return create(AnySchema, { typeUrl, value: bytesOf(bytes, `${path}.base64`) });
  }
  if (known !== undefined) {
    return create(AnySchema, { typeUrl, value: knownBytes(known, members, messages, path, depth) });
  }
  const value = members.get("value");
  if (members.size > (value === undefined ? 0 : 1)) {
    const key = [...members.keys()].find((name) => name !== "value") ?? "";
    throw fail(
      "InvalidArgument",
      `${path}: key ${quote(key)} is unknown: ${quote(typeUrl)} is no message type of this API, so give its JSON as "value" or its bytes as "base64"`,
    );
  }
  return create(AnySchema, { typeUrl, value: encoder.encode(value ?? "") });
}

function knownBytes(
  desc: DescMessage,
  members: ReadonlyMap<string, string>,
  messages: MessageText,
  path: string,
  depth: number,
): Uint8Array {
  if (UNDER_VALUE.test(desc.typeName)) {
    const value = members.get("value");
    if (value === undefined || members.size !== 1) {
      throw fail("InvalidArgument", `${path}: an Any of ${desc.typeName} has "@type" and "value"`);
    }
    return toBinary(desc, messages.read(desc, value, path, depth + 1));
  }
  const fields = [...members].map(([key, text]) => `${JSON.stringify(key)}:${text}`);
  return toBinary(desc, messages.read(desc, `{${fields.join(",")}}`, path, depth + 1));
}

/** The type's name: what follows the last slash. */
function nameOf(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
}

function bytesOf(text: string, path: string): Uint8Array {
  if (kindOf(text) !== "string")
    throw fail("InvalidArgument", `${path}: expected a string, got ${kindOf(text)}`);
  try {
    return base64Decode(JSON.parse(text) as string);
  } catch (cause) {
    throw fail("InvalidArgument", `${path}: not base64`, { cause });
  }
}
