/** JSON that administrators and plugins write: looked at before it is believed. */
import { BunkerdError, messageOf } from "../model/errors.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws InvalidArgument if the text is no JSON object */
export function parseObject(text: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BunkerdError("InvalidArgument", `error parsing ${what}: ${messageOf(error)}`, { cause: error });
  }
  if (!isObject(value)) throw new BunkerdError("InvalidArgument", `error parsing ${what}: not an object`);
  return value;
}

/** A member that may be left out. @throws InvalidArgument if it is no string */
export function stringMember(object: JsonObject, key: string, what: string): string | undefined {
  const value = object[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  throw new BunkerdError("InvalidArgument", `error parsing ${what}: invalid ${key} type ${typeof value}`);
}

/** A list that may be left out. @throws InvalidArgument if it is no list of objects */
export function objectsMember(object: JsonObject, key: string, what: string): readonly JsonObject[] {
  const value = object[key] ?? [];
  if (Array.isArray(value) && value.every(isObject)) return value;
  throw new BunkerdError("InvalidArgument", `error parsing ${what}: ${key} is no list of objects`);
}

/** A list of strings that may be left out. @throws InvalidArgument */
export function stringsMember(object: JsonObject, key: string, what: string): readonly string[] {
  const value = object[key] ?? [];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new BunkerdError("InvalidArgument", `error parsing ${what}: ${key} is no list of strings`);
}
