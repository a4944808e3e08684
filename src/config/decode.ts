import { formatDuration, parseDuration } from "../lib/duration.ts";
import { nearest } from "../lib/nearest.ts";
import { isEmpty } from "./merge.ts";
import type { Field } from "./schema.ts";
import {
  isTable,
  joinKey,
  type Node,
  nameOfType,
  type Origin,
  originOf,
  placeOf,
  type Setting,
  type Table,
  type TomlValue,
} from "./tree.ts";

/**
 * What is wrong with a key. `type` and `value` are errors always; `unknown` is one for `config check` and a warning at
 * start, as is `fault`, for which a plugin does not run; the others are warnings.
 */
export type ProblemKind = "type" | "value" | "unknown" | "fault" | "removed" | "unbuilt" | "deprecated";

export interface Problem {
  readonly kind: ProblemKind;
  /** `file: key` */
  readonly place: string;
  readonly message: string;
  /** Of `unbuilt`: the part. */
  readonly part?: string;
}

export type Report = (problem: Problem) => void;

/**
 * Reads a node as its field says. What is missing or wrong gets the default; each wrong, unknown, removed key and each key
 * of an unbuilt part that differs from its default is reported.
 */
export function decode<T>(node: Node | undefined, field: Field<T>, report: Report): T {
  // The one place where the schema's types are taken on trust: decodeNode answers what field.type says.
  return decodeNode(node, field, { report, part: undefined }) as T;
}

interface Context {
  readonly report: Report;
  readonly part: string | undefined;
}

const UNKNOWN_ORIGIN: Origin = { file: "config", key: "" };

function decodeNode(node: Node | undefined, field: Field, outer: Context): unknown {
  if (node === undefined) return field.default;
  const context = field.unbuilt === undefined ? outer : { ...outer, part: field.unbuilt };
  if (field.type === "any") return plain(node);
  if (field.type === "removed") {
    if (!isTable(node) && isEmpty(node.value)) return undefined;
    const place = placeOf(originOf(node) ?? UNKNOWN_ORIGIN);
    context.report({ kind: "removed", place, message: `${place}: ignored: ${field.hint ?? ""}` });
    return undefined;
  }
  if (field.deprecated !== undefined && !(isTable(node) ? node.size === 0 : isEmpty(node.value))) {
    const place = placeOf(originOf(node) ?? UNKNOWN_ORIGIN);
    context.report({ kind: "deprecated", place, message: `${place}: deprecated: ${field.deprecated}` });
  }
  if (isTable(node)) {
    if (field.type === "table") return decodeTable(node, field, context);
    if (field.type === "map") return decodeMap(node, field, context);
    return mismatch(originOf(node) ?? UNKNOWN_ORIGIN, field, "table", context);
  }
  return decodeSetting(node, field, context);
}

function plain(node: Node): TomlValue {
  if (!isTable(node)) return node.value;
  return Object.fromEntries([...node].map(([name, child]) => [name, plain(child)]));
}

function decodeTable(node: Table, field: Field, context: Context): unknown {
  const fields = field.fields ?? {};
  const defaults = field.default as Record<string, unknown>;
  const value: Record<string, unknown> = { ...defaults };
  for (const [written, child] of node) {
    const name = keyMeant(written, node, fields);
    const known = name === undefined ? undefined : fields[name];
    if (name === undefined || known === undefined)
      reportUnknown(written, child, Object.keys(fields), context.report);
    else value[name] = decodeNode(child, { ...known, default: defaults[name] }, context);
  }
  return value;
}

/** The key as the schema has it: go-toml takes one in letters of another case too unless the right one is there. */
function keyMeant(written: string, node: Table, fields: NonNullable<Field["fields"]>): string | undefined {
  if (Object.hasOwn(fields, written)) return written;
  const folded = written.toLowerCase();
  return Object.keys(fields).find((key) => key.toLowerCase() === folded && !node.has(key));
}

function decodeMap(node: Table, field: Field, context: Context): unknown {
  const element = field.element;
  if (element === undefined) throw new Error("a map field has an element");
  // An entry that has a default of its own (`runtimes.runc`) is completed from it, any other from the element's.
  const defaults = field.default as Record<string, unknown>;
  const pairs = [...node].map(([name, child]) => {
    const byDefault = Object.hasOwn(defaults, name) ? defaults[name] : element.default;
    return [name, decodeNode(child, { ...element, default: byDefault }, context)];
  });
  return { ...defaults, ...Object.fromEntries(pairs) };
}

/** Reports a key that no table has, with the nearest that the table has. */
export function reportUnknown(name: string, node: Node, candidates: Iterable<string>, report: Report): void {
  const origin = originOf(node) ?? { ...UNKNOWN_ORIGIN, key: joinKey(name) };
  const place = placeOf(origin);
  const meant = nearest(name, candidates);
  const advice = meant === undefined ? "" : `, did you mean ${JSON.stringify(meant)}?`;
  report({ kind: "unknown", place, message: `${place}: unknown key ${JSON.stringify(name)}${advice}` });
}

const EXPECTED: Readonly<Record<Field["type"], string>> = {
  string: "a string",
  integer: "an integer",
  float: "a number",
  boolean: "true or false",
  duration: 'a duration such as "1m30s"',
  strings: "an array of strings",
  table: "a table",
  map: "a table",
  tables: "an array of tables",
  any: "any value",
  removed: "nothing",
};

function mismatch(origin: Origin, field: Field, found: string, context: Context): unknown {
  const place = placeOf(origin);
  context.report({
    kind: "type",
    place,
    message: `${place}: expected ${EXPECTED[field.type]}, found ${found}`,
  });
  return field.default;
}

function decodeSetting(setting: Setting, field: Field, context: Context): unknown {
  const { value: raw, origin } = setting;
  if (field.type === "tables") return decodeTables(setting, field, context);
  const value = scalarOf(raw, field);
  if (value === undefined) return mismatch(origin, field, nameOfType(raw), context);
  const complaint = rangeComplaint(value, field);
  if (complaint !== undefined) {
    const place = placeOf(origin);
    context.report({ kind: "value", place, message: `${place}: ${complaint}` });
    return field.default;
  }
  if (
    context.part !== undefined &&
    !origin.derived &&
    JSON.stringify(value) !== JSON.stringify(field.default)
  ) {
    const place = placeOf(origin);
    const message = `${place}: no effect: ${context.part} is not built yet`;
    context.report({ kind: "unbuilt", place, message, part: context.part });
  }
  return value;
}

/** The value in JavaScript's type, undefined if TOML's type is another. */
function scalarOf(raw: TomlValue, field: Field): string | number | boolean | readonly string[] | undefined {
  switch (field.type) {
    case "string":
      return typeof raw === "string" ? (field.spelled?.(raw) ?? raw) : undefined;
    case "boolean":
      return typeof raw === "boolean" ? raw : undefined;
    case "integer":
      return typeof raw === "bigint" ? Number(raw) : undefined;
    case "float":
      return typeof raw === "bigint" ? Number(raw) : typeof raw === "number" ? raw : undefined;
    case "duration":
      if (typeof raw === "bigint")
        return raw === 0n || field.takesNanoseconds ? Number(raw) / 1e6 : undefined;
      return typeof raw === "string" ? parseDuration(raw) : undefined;
    case "strings":
      return Array.isArray(raw) && raw.every((item) => typeof item === "string")
        ? (raw as string[])
        : undefined;
    default:
      return undefined;
  }
}

function rangeComplaint(value: unknown, field: Field): string | undefined {
  if (field.values !== undefined && !field.values.includes(String(value))) {
    const meant = nearest(String(value), field.values);
    const advice = meant === undefined ? "" : `, did you mean ${JSON.stringify(meant)}?`;
    return `unknown value ${JSON.stringify(value)}, expected one of ${field.values.filter((name) => name !== "").join(", ")}${advice}`;
  }
  if (typeof value !== "number") return undefined;
  const show = (limit: number): string => (field.type === "duration" ? formatDuration(limit) : String(limit));
  if (Number.isNaN(value)) return "not a number";
  if (field.minimum !== undefined && value < field.minimum)
    return `${value} is below the minimum ${show(field.minimum)}`;
  if (field.maximum !== undefined && value > field.maximum)
    return `${value} is above the maximum ${show(field.maximum)}`;
  return undefined;
}

function decodeTables(setting: Setting, field: Field, context: Context): unknown {
  const { value, origin } = setting;
  const element = field.element;
  if (element === undefined) throw new Error("an array field has an element");
  if (!Array.isArray(value)) return mismatch(origin, field, nameOfType(value), context);
  return value.map((item, index) => {
    const at = { ...origin, key: `${origin.key}[${index}]` };
    if (typeof item !== "object" || item === null || Array.isArray(item) || item instanceof Date) {
      return mismatch(at, element, nameOfType(item as TomlValue), context);
    }
    const members = Object.entries(item).map(([name, child]): [string, Node] => [
      name,
      { value: child as TomlValue, origin: { ...at, key: `${at.key}.${joinKey(name)}` } },
    ]);
    return decodeNode(new Map(members), element, context);
  });
}
