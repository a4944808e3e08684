import { formatDuration } from "../lib/duration.ts";
import { CONFIG_VERSION } from "./migrate.ts";
import { PLUGINS } from "./plugins.ts";
import type { Field } from "./schema.ts";
import { ROOT } from "./server.ts";
import { formatAssignment } from "./toml.ts";
import { isTable, joinKey, type Node, nodeAt, placeOf, type Table, type TomlValue } from "./tree.ts";

export interface DumpOptions {
  /** Write behind each key that a file or flag set where that was. */
  readonly origins?: boolean;
  /** Write keys that nothing set, with their default; true if left out. */
  readonly defaults?: boolean;
}

/** config.toml of version 4: what files and flags set, and every other known key with its default. */
export function formatConfig(tree: Table, options: DumpOptions = {}): string {
  const writer = new Writer(options.origins ?? false);
  const defaults = options.defaults ?? true;
  const version: Node = { value: BigInt(CONFIG_VERSION), origin: { file: "", key: "" } };
  writer.table([], new Map([["version", version], ...tree]), defaults ? ROOT : undefined);
  const plugins = nodeAt(tree, "plugins");
  const set = isTable(plugins) ? plugins : new Map<string, Node>();
  if (defaults || set.size > 0) writer.section(["plugins"]);
  const ids = new Set([...(defaults ? Object.keys(PLUGINS) : []), ...set.keys()]);
  // What should be a table and is none stands before the tables: behind them it would be a key of the last.
  const isPlain = (id: string): boolean => set.has(id) && !isTable(set.get(id));
  for (const id of [...ids].sort((a, b) => Number(isPlain(b)) - Number(isPlain(a)))) {
    const field = defaults && Object.hasOwn(PLUGINS, id) ? PLUGINS[id] : undefined;
    const gone = Object.values(field?.fields ?? {}).every((child) => child.type === "removed");
    if (field === undefined || !gone) writer.node(["plugins", id], set.get(id), field);
  }
  return writer.text();
}

type Path = readonly string[];

class Writer {
  readonly #lines: string[] = [];
  readonly #origins: boolean;

  constructor(origins: boolean) {
    this.#origins = origins;
  }

  text(): string {
    return `${this.#lines.join("\n").trim()}\n`;
  }

  section(path: Path): void {
    const indent = "  ".repeat(Math.max(0, path.length - 1));
    this.#lines.push("", `${indent}[${joinKey(...path)}]`);
  }

  /** A table's own keys, then its tables, as TOML demands. */
  table(path: Path, node: Table | undefined, field: Field | undefined, byDefault?: unknown): void {
    const names = new Set([...Object.keys(field?.fields ?? {}), ...(node?.keys() ?? [])]);
    if (field?.type === "map" || field?.type === "any") {
      for (const name of Object.keys((byDefault ?? field.default) as object)) names.add(name);
    }
    const later: (() => void)[] = [];
    for (const name of names) {
      const child = node?.get(name);
      const childField = field?.fields?.[name] ?? field?.element;
      if (name === "plugins" && path.length === 0) continue;
      if (childField?.type === "removed") continue;
      const childDefault =
        (byDefault as Record<string, unknown> | undefined)?.[name] ?? defaultOf(name, field);
      if (isTable(child) || (child === undefined && isTableField(childField, childDefault))) {
        later.push(() => this.node([...path, name], child, childField, childDefault));
      } else this.#assignment(path, name, child, childField, childDefault);
    }
    for (const write of later) write();
  }

  node(
    path: Path,
    node: Node | undefined,
    field: Field | undefined,
    byDefault: unknown = field?.default,
  ): void {
    if (node !== undefined && !isTable(node)) {
      this.#assignment(path.slice(0, -1), path.at(-1) ?? "", node, field, byDefault);
      return;
    }
    this.section(path);
    this.table(path, node, field, byDefault);
  }

  #assignment(
    path: Path,
    name: string,
    node: Node | undefined,
    field: Field | undefined,
    byDefault: unknown,
  ): void {
    const value = node !== undefined && !isTable(node) ? node.value : tomlOf(byDefault, field);
    if (value === undefined) return;
    const origin =
      node !== undefined && !isTable(node) && node.origin.file !== "" ? `  # ${placeOf(node.origin)}` : "";
    this.#lines.push(
      `${"  ".repeat(path.length)}${formatAssignment(name, value)}${this.#origins ? origin : ""}`,
    );
  }
}

function defaultOf(name: string, field: Field | undefined): unknown {
  if (field?.type === "table") return field.fields?.[name]?.default;
  return (field?.default as Record<string, unknown> | undefined)?.[name];
}

function isTableField(field: Field | undefined, value: unknown): boolean {
  if (field !== undefined) return field.type === "table" || field.type === "map" || field.type === "any";
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A typed default as the TOML value that gives it. */
function tomlOf(value: unknown, field: Field | undefined): TomlValue | undefined {
  // An array of tables that is there but empty says "none" to containerd; absent, "as you think best".
  if (value === undefined || field?.type === "tables") return undefined;
  if (field?.type === "duration") return formatDuration(value as number);
  if (field?.type === "integer") return BigInt(value as number);
  return value as TomlValue;
}
