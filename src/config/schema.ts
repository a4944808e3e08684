import type { TomlValue } from "./tree.ts";

export type FieldType =
  | "string"
  | "integer"
  | "float"
  | "boolean"
  | "duration"
  | "strings"
  | "table"
  | "map"
  | "tables"
  | "any"
  | "removed";

/** What a key may hold, its default, and where that is known, the part of bunkerd that reads it and is not built yet. */
export interface Field<T = unknown> {
  readonly type: FieldType;
  readonly default: T;
  /** Of a duration: a number without a unit is nanoseconds. */
  readonly takesNanoseconds?: true;
  /** Allowed texts of a string. */
  readonly values?: readonly string[];
  /** The allowed text that another spelling means. */
  readonly spelled?: (text: string) => string;
  /** Bounds of a number. */
  readonly minimum?: number;
  readonly maximum?: number;
  /** Keys of a table. */
  readonly fields?: Readonly<Record<string, Field>>;
  /** What each entry of a map or an array of tables holds. */
  readonly element?: Field;
  /** The part that will read the key; the key is accepted with a warning. */
  readonly unbuilt?: string;
  /** Of a removed key: what to do instead. */
  readonly hint?: string;
  /** Of a key that has its effect, and that newer versions of containerd drop: what to do instead. */
  readonly deprecated?: string;
}

export type ValueOf<F> = F extends Field<infer T> ? T : never;
type Fields = Readonly<Record<string, Field>>;
type TableValue<F extends Fields> = { readonly [K in keyof F]: ValueOf<F[K]> };

export function string(byDefault = "", values?: readonly string[]): Field<string> {
  return { type: "string", default: byDefault, ...(values === undefined ? {} : { values }) };
}

/** An integer that JavaScript holds exactly. */
export function integer(
  byDefault = 0,
  minimum = Number.MIN_SAFE_INTEGER,
  maximum = Number.MAX_SAFE_INTEGER,
): Field<number> {
  return { type: "integer", default: byDefault, minimum, maximum };
}

export function float(byDefault: number, minimum?: number, maximum?: number): Field<number> {
  return {
    type: "float",
    default: byDefault,
    ...(minimum === undefined ? {} : { minimum }),
    ...(maximum === undefined ? {} : { maximum }),
  };
}

export function boolean(byDefault = false): Field<boolean> {
  return { type: "boolean", default: byDefault };
}

/** A Go duration string; its value is milliseconds. */
export function duration(byDefaultMs = 0): Field<number> {
  return { type: "duration", default: byDefaultMs };
}

/** The same where Go keeps a `time.Duration` and no text, so that a number is taken too: nanoseconds. */
export function durationOrNanoseconds(byDefaultMs = 0): Field<number> {
  return { ...duration(byDefaultMs), takesNanoseconds: true };
}

export function strings(byDefault: readonly string[] = []): Field<readonly string[]> {
  return { type: "strings", default: byDefault };
}

export function table<F extends Fields>(fields: F): Field<TableValue<F>> {
  const defaults = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.default]));
  return { type: "table", default: defaults as TableValue<F>, fields };
}

/** A table whose keys the user chooses. */
export function map<T>(
  element: Field<T>,
  byDefault: Readonly<Record<string, T>> = {},
): Field<Readonly<Record<string, T>>> {
  return { type: "map", default: byDefault, element };
}

/** An array of tables. */
export function tables<T>(element: Field<T>, byDefault: readonly T[] = []): Field<readonly T[]> {
  return { type: "tables", default: byDefault, element };
}

/** Not looked into here, such as a runtime's own options. */
export function any(byDefault: TomlValue = {}): Field<TomlValue> {
  return { type: "any", default: byDefault };
}

/** A key that older versions of containerd had: a warning, not an error. */
export function removed(hint = "containerd dropped it"): Field<undefined> {
  return { type: "removed", default: undefined, hint };
}

/** Marks a field as read by a part that is not built yet. */
export function unbuilt<T>(part: string, field: Field<T>): Field<T> {
  return { ...field, unbuilt: part };
}

/** Marks a field that works as it always did, with a warning. */
export function deprecated<T>(instead: string, field: Field<T>): Field<T> {
  return { ...field, deprecated: instead };
}
