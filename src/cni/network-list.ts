/**
 * Network configurations: a list of plugins that are called one after another (CNI specification, section 1; what is accepted is what
 * `libcni/conf.go` accepts).
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { BunkerdError, quote } from "../model/errors.ts";
import { isObject, type JsonObject, parseObject, stringMember, stringsMember } from "./json.ts";
import { CURRENT_VERSION, compareVersions } from "./versions.ts";

export interface PluginConfig {
  /** The program's name. */
  readonly type: string;
  /** Which of the runtime's capability arguments it is given. */
  readonly capabilities: ReadonlySet<string>;
  /** All of it, as written. */
  readonly json: JsonObject;
}

export interface NetworkList {
  readonly name: string;
  /** Empty if none is written. */
  readonly cniVersion: string;
  readonly disableCheck: boolean;
  readonly disableGc: boolean;
  readonly plugins: readonly PluginConfig[];
  /** The text that it was read from; kept with each attachment, for its end. */
  readonly source: string;
}

const WHAT = "configuration list";
/** It becomes part of paths: of the attachment's record, of the folder with more plugins. */
const NETWORK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** Of a `.conflist`. Plugins may be missing: those of `<name>/*.conf` follow. @throws InvalidArgument */
export function parseNetworkList(source: string): NetworkList & { readonly onlyInlined: boolean } {
  const json = parseObject(source, WHAT);
  const name = stringMember(json, "name", WHAT);
  if (name === undefined) throw invalid("no name");
  if (!NETWORK_NAME.test(name)) throw invalid(`invalid characters found in network name ${quote(name)}`);
  const onlyInlined = flagOf(json, "loadOnlyInlinedPlugins");
  const { plugins } = json;
  if (plugins === undefined && onlyInlined)
    throw invalid("`loadOnlyInlinedPlugins` is true, and no 'plugins' key");
  if (plugins !== undefined && !Array.isArray(plugins)) throw invalid("'plugins' is no list");
  if (plugins !== undefined && plugins.length === 0) throw invalid("no plugins in list");
  return {
    name,
    cniVersion: versionOf(json),
    disableCheck: flagOf(json, "disableCheck"),
    disableGc: flagOf(json, "disableGC"),
    plugins: (plugins ?? []).map(pluginOf),
    source,
    onlyInlined,
  };
}

/** Of a `.conf` or `.json`: one plugin, which names the network. @throws InvalidArgument */
export function parseSinglePlugin(source: string): NetworkList {
  const json = parseObject(source, "configuration");
  const plugin = pluginOf(json);
  const name = stringMember(json, "name", "configuration") ?? "";
  const cniVersion = stringMember(json, "cniVersion", "configuration") ?? "";
  return parseNetworkList(JSON.stringify({ name, cniVersion, plugins: [plugin.json] }));
}

/** @throws InvalidArgument, ErrnoException */
export function loadNetworkList(file: string): NetworkList {
  const source = readFileSync(file, "utf8");
  const list = file.endsWith(".conflist") ? parseNetworkList(source) : parseSinglePlugin(source);
  if ("onlyInlined" in list && list.onlyInlined) return list;
  const folder = join(dirname(file), list.name);
  const plugins = configFiles(folder, [".conf"]).map((path) =>
    pluginOf(parseObject(readFileSync(path, "utf8"), "configuration")),
  );
  if (list.plugins.length + plugins.length === 0)
    throw new BunkerdError("InvalidArgument", "no plugin configs found");
  return plugins.length === 0 ? list : inlined(list, plugins);
}

/** What is kept with an attachment must be whole without the folder. */
function inlined(list: NetworkList, plugins: readonly PluginConfig[]): NetworkList {
  const all = [...list.plugins, ...plugins];
  const json = { ...parseObject(list.source, WHAT), plugins: all.map((plugin) => plugin.json) };
  return { ...list, plugins: all, source: JSON.stringify(json) };
}

/** Files of these endings, in the order of their names; none if there is no such folder. @throws ErrnoException */
export function configFiles(folder: string, endings: readonly string[]): readonly string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory() && endings.includes(extname(entry.name)))
      .map((entry) => join(folder, entry.name))
      .sort();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    throw error;
  }
}

function pluginOf(json: unknown): PluginConfig {
  if (!isObject(json))
    throw new BunkerdError("InvalidArgument", "failed to parse plugin config: not an object");
  const type = stringMember(json, "type", "configuration") ?? "";
  if (type === "") throw new BunkerdError("InvalidArgument", "error parsing configuration: missing 'type'");
  const capabilities = json["capabilities"] ?? {};
  if (!isObject(capabilities))
    throw new BunkerdError("InvalidArgument", "error parsing configuration: 'capabilities' is no object");
  const wanted = Object.keys(capabilities).filter((name) => capabilities[name] === true);
  return { type, capabilities: new Set(wanted), json };
}

/** The newest of `cniVersions` and `cniVersion` that is spoken here. */
function versionOf(json: JsonObject): string {
  const single = stringMember(json, "cniVersion", WHAT) ?? "";
  if (json["cniVersions"] === undefined) return single;
  const offered = [...stringsMember(json, "cniVersions", WHAT), ...(single === "" ? [] : [single])];
  const spoken = offered
    .filter((version) => compareVersions(version, CURRENT_VERSION) <= 0)
    .sort(compareVersions);
  return spoken.at(-1) ?? single;
}

/** `true`, `"true"` and their opposites. */
function flagOf(json: JsonObject, key: string): boolean {
  const value = json[key];
  const text = typeof value === "string" ? value.toLowerCase() : value;
  if (text === undefined || text === false || text === "false") return false;
  if (text === true || text === "true") return true;
  throw invalid(`invalid value ${JSON.stringify(value)} for ${key}`);
}

function invalid(complaint: string): BunkerdError {
  return new BunkerdError("InvalidArgument", `error parsing ${WHAT}: ${complaint}`);
}
