/**
 * A `google.protobuf.FieldMask` in JSON. Protobuf's rule turns every path into camelCase and back, which changes the
 * label in `labels.my_key`; here only the first name of a path is a field's and all behind it a map's key, kept as it is.
 * A path that has a comma in its key can only be written as `{"paths": ["labels.a,b"]}`, which is read everywhere.
 */
import { create } from "@bufbuild/protobuf";
import { type FieldMask, FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { fail } from "../../model/errors.ts";
import { kindOf } from "./json-text.ts";

export function fieldMaskToText(mask: FieldMask): string {
  if (mask.paths.some((path) => path.includes(","))) return JSON.stringify({ paths: mask.paths });
  return JSON.stringify(mask.paths.map((path) => onFieldName(path, camelCase)).join(","));
}

/** @param text well-formed JSON */
export function fieldMaskFromText(text: string, path: string): FieldMask {
  const json = JSON.parse(text) as unknown;
  if (typeof json === "string") {
    const paths = json === "" ? [] : json.split(",").map((one) => onFieldName(one, snakeCase));
    return create(FieldMaskSchema, { paths });
  }
  const paths = json !== null && typeof json === "object" && "paths" in json ? json.paths : undefined;
  if (!Array.isArray(paths) || !paths.every((one) => typeof one === "string")) {
    throw fail(
      "InvalidArgument",
      `${path}: expected a string of paths separated by commas or an object {"paths": [...]}, got ${kindOf(text)}`,
    );
  }
  return create(FieldMaskSchema, { paths });
}

function onFieldName(path: string, change: (name: string) => string): string {
  const dot = path.indexOf(".");
  return dot === -1 ? change(path) : change(path.slice(0, dot)) + path.slice(dot);
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
