/** How an imported file changes what was read before it: `mergeConfig` of containerd's `cmd/containerd/server/config/config.go`. */
import { isTable, type Node, type Setting, type Table, type TomlValue } from "./tree.ts";

/** Maps whose entries are replaced whole. */
const REPLACED_BY_ENTRY = new Set(["timeouts", "stream_processors", "proxy_plugins"]);

/**
 * Merges the root table of a file into `to`: strings, numbers and booleans override unless they are empty, arrays
 * are united, entries of maps are replaced, `plugins` are merged key by key (there, empty values and arrays override).
 */
export function mergeRoot(to: Table, from: Table): void {
  for (const [name, node] of from) {
    const before = to.get(name);
    if (name === "plugins" && isTable(node) && isTable(before)) mergePlugins(before, node);
    else if (REPLACED_BY_ENTRY.has(name) && isTable(node) && isTable(before)) {
      for (const [entry, value] of node) before.set(entry, value);
    } else to.set(name, mergeNode(before, node));
  }
}

function mergeNode(before: Node | undefined, after: Node): Node {
  if (before === undefined) return after;
  if (isTable(before) && isTable(after)) {
    for (const [name, node] of after) before.set(name, mergeNode(before.get(name), node));
    return before;
  }
  if (isTable(before) || isTable(after)) return after;
  if (Array.isArray(before.value) && Array.isArray(after.value)) return union(before, after);
  return isEmpty(after.value) ? before : after;
}

function union(before: Setting, after: Setting): Setting {
  const seen = new Set((before.value as readonly TomlValue[]).map(identity));
  const added = (after.value as readonly TomlValue[]).filter((item) => !seen.has(identity(item)));
  if (added.length === 0) return before;
  return { value: [...(before.value as readonly TomlValue[]), ...added], origin: after.origin };
}

function identity(value: TomlValue): string {
  return JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `${item}n` : item));
}

/** Go's zero values, which count as "not set" there. */
export function isEmpty(value: TomlValue): boolean {
  return value === "" || value === 0n || value === 0 || value === false;
}

function mergePlugins(to: Table, from: Table): void {
  for (const [name, node] of from) {
    const before = to.get(name);
    if (isTable(before) && isTable(node)) mergePlugins(before, node);
    else to.set(name, node);
  }
}
