/** A message as JSON text and back: protobuf's JSON mapping, but for Any (see `any.ts`) and FieldMask. */
import {
  type DescField,
  type DescMessage,
  fromJson,
  fromJsonString,
  type JsonValue,
  type Message,
  type Registry,
  toJsonString,
} from "@bufbuild/protobuf";
import type { Any, FieldMask } from "@bufbuild/protobuf/wkt";
import { BunkerdError, fail, messageOf, quote } from "../../model/errors.ts";
import { anyFromText, anyToText, type MessageText } from "./any.ts";
import { fieldMaskFromText, fieldMaskToText } from "./field-mask.ts";
import { describeJsonError, itemsOf, kindOf, membersOf } from "./json-text.ts";

const ANY = "google.protobuf.Any";
const FIELD_MASK = "google.protobuf.FieldMask";

export interface JsonCodec {
  toText(desc: DescMessage, message: Message): string;
  /** @throws InvalidArgument saying what is wrong where; an unknown field is an error that names it */
  fromText(desc: DescMessage, text: string): Message;
}

/** @param types the messages that an Any may hold as fields rather than as bytes */
export function jsonCodec(types: Registry): JsonCodec {
  const messages: MessageText = {
    types,
    write: (desc, message, depth) => writeMessage(desc, message, messages, depth),
    read: (desc, text, path, depth) => readMessage(desc, text, messages, path, depth),
  };
  return {
    toText: (desc, message) => messages.write(desc, message, 0),
    fromText(desc, text) {
      try {
        JSON.parse(text);
      } catch (cause) {
        const where =
          text.trim() === "" ? "the body is empty, an empty message is {}" : describeJsonError(text);
        throw fail("InvalidArgument", `request is not JSON: ${where ?? messageOf(cause)}`, { cause });
      }
      return messages.read(desc, text, "", 0);
    },
  };
}

function writeMessage(desc: DescMessage, message: Message, messages: MessageText, depth: number): string {
  if (desc.typeName === ANY) return anyToText(message as Any, messages, depth);
  if (desc.typeName === FIELD_MASK) return fieldMaskToText(message as FieldMask);
  const own = ownFieldsOf(desc);
  if (own.length === 0) return toJsonString(desc, message);
  // The fields that need a rule of ours are taken out of a copy, protobuf-es writes the rest, ours go behind.
  const rest: Record<string, unknown> = { ...message };
  const texts: string[] = [];
  for (const field of own) {
    const value = takeField(rest, field);
    if (value === undefined) continue;
    const text = writeField(field, value, messages, depth);
    if (text !== undefined) texts.push(`${JSON.stringify(field.jsonName)}:${text}`);
  }
  const head = toJsonString(desc, rest as unknown as Message);
  if (texts.length === 0) return head;
  return head === "{}" ? `{${texts.join(",")}}` : `${head.slice(0, -1)},${texts.join(",")}}`;
}

/** Removes a field's value from a message; undefined if it was not set. */
function takeField(message: Record<string, unknown>, field: DescField): unknown {
  if (field.oneof !== undefined) {
    const group = message[field.oneof.localName] as { case: string | undefined; value?: unknown };
    if (group.case !== field.localName) return undefined;
    message[field.oneof.localName] = { case: undefined };
    return group.value;
  }
  const value = message[field.localName];
  message[field.localName] = field.fieldKind === "list" ? [] : field.fieldKind === "map" ? {} : undefined;
  return value;
}

function writeField(
  field: DescField,
  value: unknown,
  messages: MessageText,
  depth: number,
): string | undefined {
  const desc = messageOfField(field);
  if (field.fieldKind === "list") {
    const items = (value as Message[]).map((item) => messages.write(desc, item, depth));
    return items.length === 0 ? undefined : `[${items.join(",")}]`;
  }
  if (field.fieldKind === "map") {
    const entries = Object.entries(value as Record<string, Message>).map(
      ([key, item]) => `${JSON.stringify(key)}:${messages.write(desc, item, depth)}`,
    );
    return entries.length === 0 ? undefined : `{${entries.join(",")}}`;
  }
  return messages.write(desc, value as Message, depth);
}

function readMessage(
  desc: DescMessage,
  text: string,
  messages: MessageText,
  path: string,
  depth: number,
): Message {
  if (desc.typeName === ANY) return anyFromText(text, messages, path || "request", depth);
  if (desc.typeName === FIELD_MASK) return fieldMaskFromText(text, path || "request");
  const own = ownFieldsOf(desc);
  if (own.length === 0) return readPlain(desc, text, path);
  if (kindOf(text) !== "object") {
    throw fail("InvalidArgument", `${path || "request"}: expected an object, got ${kindOf(text)}`);
  }
  const rest: string[] = [];
  const found = new Map<DescField, string>();
  for (const member of membersOf(text)) {
    const field = own.find((one) => one.jsonName === member.key || one.name === member.key);
    if (field === undefined) rest.push(`${JSON.stringify(member.key)}:${member.text}`);
    else if (found.has(field)) throw fail("InvalidArgument", `${join(path, field.jsonName)}: is there twice`);
    else found.set(field, member.text);
  }
  const message = readPlain(desc, `{${rest.join(",")}}`, path);
  for (const [field, value] of found) {
    if (kindOf(value) !== "null")
      readField(message, field, value, messages, join(path, field.jsonName), depth);
  }
  return message;
}

function readField(
  message: Message,
  field: DescField,
  text: string,
  messages: MessageText,
  path: string,
  depth: number,
): void {
  const desc = messageOfField(field);
  const record = message as unknown as Record<string, unknown>;
  const expected = field.fieldKind === "list" ? "array" : field.fieldKind === "map" ? "object" : undefined;
  if (expected !== undefined && kindOf(text) !== expected) {
    throw fail("InvalidArgument", `${path}: expected ${expected}, got ${kindOf(text)}`);
  }
  if (field.fieldKind === "list") {
    record[field.localName] = itemsOf(text).map((item, at) =>
      messages.read(desc, item, `${path}[${at}]`, depth),
    );
  } else if (field.fieldKind === "map") {
    // Not an assignment: a key may be "__proto__".
    const entries = membersOf(text).map(
      ({ key, text: item }) => [key, messages.read(desc, item, `${path}[${quote(key)}]`, depth)] as const,
    );
    record[field.localName] = Object.fromEntries(entries);
  } else if (field.oneof !== undefined) {
    const group = record[field.oneof.localName] as { case: string | undefined };
    if (group.case !== undefined) throw fail("InvalidArgument", `${path}: ${field.oneof.name} is set twice`);
    record[field.oneof.localName] = { case: field.localName, value: messages.read(desc, text, path, depth) };
  } else {
    record[field.localName] = messages.read(desc, text, path, depth);
  }
}

/** A message without fields of ours, read by protobuf-es. */
function readPlain(desc: DescMessage, text: string, path: string): Message {
  try {
    // An integer of 64 bits may be written as a number: past 2^53 it must not become a double on its way.
    return /[0-9]{16}/.test(text) ? fromJson(desc, parseExactly(text)) : fromJsonString(desc, text);
  } catch (cause) {
    if (cause instanceof BunkerdError) throw cause;
    throw fail("InvalidArgument", `${path === "" ? "" : `${path}: `}${messageOf(cause)}`, { cause });
  }
}

function parseExactly(text: string): JsonValue {
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
    const source = context?.source;
    if (typeof value !== "number" || Number.isSafeInteger(value) || source === undefined) return value;
    return /^-?[0-9]+$/.test(source) ? BigInt(source) : value;
  }) as JsonValue;
}

function messageOfField(field: DescField): DescMessage {
  const desc = "message" in field ? field.message : undefined;
  if (desc === undefined) throw new TypeError(`${field} holds no message`);
  return desc;
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

const ownFields = new WeakMap<DescMessage, readonly DescField[]>();

/** The fields whose values, however deep, hold an Any or a FieldMask. */
function ownFieldsOf(desc: DescMessage): readonly DescField[] {
  let fields = ownFields.get(desc);
  if (fields === undefined) {
    fields = desc.fields.filter((field) => {
      const message = "message" in field ? field.message : undefined;
      return message !== undefined && needsOwnRule(message, new Set());
    });
    ownFields.set(desc, fields);
  }
  return fields;
}

function needsOwnRule(desc: DescMessage, seen: Set<DescMessage>): boolean {
  if (desc.typeName === ANY || desc.typeName === FIELD_MASK) return true;
  if (seen.has(desc)) return false;
  seen.add(desc);
  return desc.fields.some((field) => {
    const message = "message" in field ? field.message : undefined;
    return message !== undefined && needsOwnRule(message, seen);
  });
}
