import { readFileSync } from "node:fs";
import { parse, stringify, TomlError } from "smol-toml";
import { BunkerdError, messageOf } from "../model/errors.ts";
import { type Table, type TomlValue, treeOf } from "./tree.ts";

/** A config file beyond this is a mistake (a device, a log), not a config. */
const MAX_FILE_BYTES = 16 << 20;

/** @throws InvalidArgument naming file, line and column on a syntax error */
export function parseToml(text: string, file: string): Table {
  try {
    return treeOf(
      parse(text, { integersAsBigInt: true, maxDepth: 64 }) as { [key: string]: TomlValue },
      file,
    );
  } catch (error) {
    throw new BunkerdError("InvalidArgument", `${file}${describeSyntaxError(error)}`, { cause: error });
  }
}

function describeSyntaxError(error: unknown): string {
  const first = (messageOf(error).split("\n")[0] ?? "").replace(/^Invalid TOML document: /, "");
  return error instanceof TomlError ? `:${error.line}:${error.column}: ${first}` : `: ${first}`;
}

/** @throws NotFound, PermissionDenied, InvalidArgument */
export function readToml(file: string): Table {
  let text: string;
  try {
    const bytes = readFileSync(file);
    if (bytes.length > MAX_FILE_BYTES) {
      throw new BunkerdError(
        "InvalidArgument",
        `${file}: ${bytes.length} bytes is too large for a config file`,
      );
    }
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (error) {
    if (error instanceof BunkerdError) throw error;
    throw readFailure(file, error);
  }
  return parseToml(text, file);
}

function readFailure(file: string, error: unknown): BunkerdError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOENT") return new BunkerdError("NotFound", `open ${file}: no such file or directory`);
  if (code === "EACCES" || code === "EPERM") {
    return new BunkerdError("PermissionDenied", `open ${file}: permission denied`);
  }
  if (error instanceof TypeError) return new BunkerdError("InvalidArgument", `${file}: not UTF-8 text`);
  return new BunkerdError("InvalidArgument", `read ${file}: ${messageOf(error)}`);
}

/** Integers are bigint here, so a number is a float and is written as one. */
const FORMAT = { numbersAsFloat: true };

/** `key = value` for one line of TOML. */
export function formatAssignment(key: string, value: TomlValue): string {
  // stringify writes `"" = …` keys and every scalar and array; a table in an array would start a section, so it goes inline.
  if (Array.isArray(value) && value.some((item) => typeof item === "object" && !(item instanceof Date))) {
    return `${formatKey(key)} = [${value.map(formatInline).join(", ")}]`;
  }
  return stringify({ [key]: value }, FORMAT).trimEnd();
}

function formatKey(key: string): string {
  return stringify({ [key]: 0n }).split(" = ")[0] ?? key;
}

function formatInline(value: TomlValue): string {
  if (Array.isArray(value)) return `[${value.map(formatInline).join(", ")}]`;
  if (typeof value === "object" && !(value instanceof Date)) {
    const pairs = Object.entries(value).map(([name, child]) => `${formatKey(name)} = ${formatInline(child)}`);
    return `{ ${pairs.join(", ")} }`;
  }
  return stringify({ x: value }, FORMAT).trimEnd().slice("x = ".length);
}
