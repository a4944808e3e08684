import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { BunkerdError } from "../model/errors.ts";
import { type Config, DEFAULT_CONFIG_PATH, type Problem, readConfig } from "./config.ts";
import { resolveImports } from "./imports.ts";
import { mergeRoot } from "./merge.ts";
import { CONFIG_VERSION, migrate, versionOf } from "./migrate.ts";
import { readToml } from "./toml.ts";
import { isTable, nameOfType, nodeAt, originOf, placeOf, type Setting, type Table, tableAt } from "./tree.ts";

/** Settings from the command line; they win over the files. */
export interface ConfigFlags {
  readonly address?: string | undefined;
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly logLevel?: string | undefined;
}

export interface LoadOptions {
  /** Undefined: {@link DEFAULT_CONFIG_PATH} if it exists, otherwise none. */
  readonly path?: string | undefined;
  readonly flags?: ConfigFlags;
}

export interface LoadedConfig {
  readonly config: Config;
  /** Files in the order in which they were read. */
  readonly files: readonly string[];
  readonly problems: readonly Problem[];
  /** What files and flags set, in the terms of version 4; each leaf with its origin. */
  readonly tree: Table;
}

/**
 * Reads the config file, its imports, and the flags.
 * @throws NotFound, PermissionDenied for a file; InvalidArgument on bad TOML, a version that is not known, or settings that exclude each other
 */
export function loadConfig(options: LoadOptions): LoadedConfig {
  const problems: Problem[] = [];
  const tree: Table = new Map();
  const path = options.path ?? (existsSync(DEFAULT_CONFIG_PATH) ? DEFAULT_CONFIG_PATH : undefined);
  const files = path === undefined ? [] : readFiles(path, tree, problems);
  applyFlags(tree, options.flags ?? {});
  const config = readConfig(tree, (problem) => problems.push(problem));
  return { config, files, problems, tree };
}

function readFiles(path: string, tree: Table, problems: Problem[]): string[] {
  const files: string[] = [];
  const pending = [path];
  for (let file = pending.shift(); file !== undefined; file = pending.shift()) {
    if (files.includes(file)) continue;
    files.push(file);
    const root = readToml(file);
    const version = versionOf(root, file);
    warnOfVersion(root, file, version, problems);
    migrate(root, version);
    root.delete("version");
    pending.push(...resolveImports(file, importsOf(root)));
    mergeRoot(tree, root);
  }
  return files;
}

function importsOf(root: Table): readonly string[] {
  const node = root.get("imports");
  if (node === undefined) return [];
  if (!isTable(node) && Array.isArray(node.value) && node.value.every((item) => typeof item === "string")) {
    return node.value as readonly string[];
  }
  const found = isTable(node) ? "table" : nameOfType(node.value);
  const place = placeOf(originOf(node) ?? { file: "config", key: "imports" });
  throw new BunkerdError("InvalidArgument", `${place}: expected an array of strings, found ${found}`);
}

/** Keys that version 4 no longer reads: containerd ignores them in silence there. */
function warnOfVersion(root: Table, file: string, version: number, problems: Problem[]): void {
  if (version < 2) {
    const found = version === 0 ? "no version, taken as version 1" : "version 1";
    const message = `${file}: ${found}: plugin names are read in their old short form; write version = ${CONFIG_VERSION}`;
    problems.push({ kind: "deprecated", place: file, message });
  }
  if (version < CONFIG_VERSION) return;
  const ignored: [string, string[], string][] = [
    ["grpc", [], "io.containerd.server.v1.grpc"],
    ["ttrpc", [], "io.containerd.server.v1.ttrpc"],
    ["metrics", [], "io.containerd.server.v1.metrics"],
    ["debug", ["address", "uid", "gid"], "io.containerd.server.v1.debug"],
  ];
  for (const [table, names, plugin] of ignored) {
    const node = root.get(table);
    if (!isTable(node)) continue;
    for (const [name, child] of [...node]) {
      if (names.length > 0 && !names.includes(name)) continue;
      const place = placeOf(originOf(child) ?? { file, key: table });
      const message = `${place}: ignored: version 4 reads it from plugins."${plugin}"`;
      problems.push({ kind: "removed", place, message });
      node.delete(name);
    }
    if (node.size === 0) root.delete(table);
  }
}

function applyFlags(tree: Table, flags: ConfigFlags): void {
  const flag = (name: string, value: string): Setting => ({ value, origin: { file: `--${name}`, key: "" } });
  if (flags.root !== undefined && flags.root !== "") tree.set("root", flag("root", resolve(flags.root)));
  if (flags.state !== undefined && flags.state !== "") tree.set("state", flag("state", resolve(flags.state)));
  if (flags.logLevel) tableAt(tree, "debug").set("level", flag("log-level", flags.logLevel));
  if (!flags.address) return;
  const plugins = tableAt(tree, "plugins");
  const grpc = tableAt(plugins, "io.containerd.server.v1.grpc");
  grpc.set("address", flag("address", flags.address));
  if (nodeAt(plugins, "io.containerd.server.v1.ttrpc") !== undefined) return;
  const ttrpc = tableAt(plugins, "io.containerd.server.v1.ttrpc");
  const origin = { file: "--address", key: "", derived: true };
  ttrpc.set("address", { value: `${flags.address}.ttrpc`, origin });
  for (const name of ["uid", "gid"]) {
    const owner = grpc.get(name);
    if (owner !== undefined && !isTable(owner)) ttrpc.set(name, { value: owner.value, origin });
  }
}
