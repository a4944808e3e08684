import { BunkerdError } from "../model/errors.ts";

/** A TOML value. Integers are bigint (TOML has 64 bits), so that `1` and `1.0` stay apart. */
export type TomlValue =
  | string
  | number
  | bigint
  | boolean
  | Date
  | readonly TomlValue[]
  | { readonly [key: string]: TomlValue };

/** Where a value was written. */
export interface Origin {
  /** Path of the file, or the flag that set it. */
  readonly file: string;
  /** Dotted key as the file has it, before migration; empty for a flag. */
  readonly key: string;
  /** True if migration made the value up from another one. */
  readonly derived?: boolean;
}

/** A leaf: anything but a table. */
export interface Setting {
  readonly value: TomlValue;
  readonly origin: Origin;
}

/** A table keeps hostile keys such as `__proto__` as mere keys, hence a Map. */
export type Table = Map<string, Node>;
export type Node = Setting | Table;

export function isTable(node: Node | undefined): node is Table {
  return node instanceof Map;
}

/** `plugins."io.containerd.gc.v1.scheduler".pause_threshold` */
export function joinKey(...segments: readonly string[]): string {
  return segments.map((name) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name))).join(".");
}

/** `file: key`, as messages name a place. */
export function placeOf(origin: Origin): string {
  return origin.key === "" ? origin.file : `${origin.file}: ${origin.key}`;
}

function isPlainTable(value: unknown): value is { readonly [key: string]: TomlValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Turns a parsed document into a tree whose leaves know their origin. */
export function treeOf(document: { readonly [key: string]: TomlValue }, file: string): Table {
  const convert = (value: { readonly [key: string]: TomlValue }, path: readonly string[]): Table =>
    new Map(
      Object.entries(value).map(([name, child]): [string, Node] => {
        const at = [...path, name];
        if (isPlainTable(child)) return [name, convert(child, at)];
        return [name, { value: child, origin: { file, key: joinKey(...at) } }];
      }),
    );
  return convert(document, []);
}

/** The inverse of {@link treeOf}, without the origins. */
export function plainOf(node: Node): TomlValue {
  if (!isTable(node)) return node.value;
  return Object.fromEntries([...node].map(([name, child]) => [name, plainOf(child)]));
}

/** The first origin below a node, for messages about a table. */
export function originOf(node: Node | undefined): Origin | undefined {
  if (node === undefined) return undefined;
  if (!isTable(node)) return node.origin;
  for (const child of node.values()) {
    const found = originOf(child);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The table at `name`, made if it is missing. @throws InvalidArgument if a plain value stands there */
export function tableAt(parent: Table, name: string): Table {
  const node = parent.get(name);
  if (isTable(node)) return node;
  if (node !== undefined) {
    throw new BunkerdError(
      "InvalidArgument",
      `${placeOf(node.origin)}: expected a table, found ${nameOfType(node.value)}`,
    );
  }
  const made: Table = new Map();
  parent.set(name, made);
  return made;
}

/** The node at a path of names. */
export function nodeAt(root: Table, ...path: readonly string[]): Node | undefined {
  let node: Node | undefined = root;
  for (const name of path) {
    if (!isTable(node)) return undefined;
    node = node.get(name);
  }
  return node;
}

/** A value's type in TOML's words, for messages. */
export function nameOfType(value: TomlValue): string {
  if (typeof value === "string") return `string ${shorten(JSON.stringify(value))}`;
  if (typeof value === "bigint") return `integer ${value}`;
  if (typeof value === "number") return `float ${value}`;
  if (typeof value === "boolean") return `boolean ${value}`;
  if (value instanceof Date) return "datetime";
  return Array.isArray(value) ? "array" : "table";
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
