import { readdirSync, statSync } from "node:fs";
import { join, posix } from "node:path";
import { readToml } from "../config/toml.ts";
import { isTable, type Node, type Table, type TomlValue } from "../config/tree.ts";
import { parseDuration } from "../lib/duration.ts";
import { BunkerdError, isError, messageOf, quote } from "../model/errors.ts";
import { MAX_HOSTS } from "./limits.ts";
import { isLoopback } from "./loopback.ts";
import { type Mirrors, mirrorEntries } from "./mirrors.ts";

/*
 * Which hosts are asked for a name: `hosts.toml` or certificates in a folder for the host, in the order and by the rules of containerd
 * `core/remotes/docker/config/hosts.go`.
 */

export type Capability = "pull" | "resolve" | "push" | "referrers";

/** A host that is asked. */
export interface RegistryHost {
  readonly scheme: "http" | "https";
  /** With its port. */
  readonly host: string;
  /** Root of the API: `/v2`. */
  readonly path: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly tls: TlsFiles;
  /** The scheme is https only because TLS was set up for it: plain http is tried where the server does not speak TLS. */
  readonly fallsBack: boolean;
  readonly dialTimeoutMs?: number | undefined;
  /** What decided for it: a file, or words. */
  readonly origin: string;
}

/** Files, and whether a server must prove itself; all undefined: TLS as usual. */
export interface TlsFiles {
  readonly ca?: readonly string[] | undefined;
  /** Certificate and key; without a key, both are in the first. */
  readonly client?: readonly (readonly [cert: string, key: string | undefined])[] | undefined;
  readonly skipVerify?: boolean | undefined;
}

export interface HostEntry {
  readonly url?: { readonly scheme: "http" | "https"; readonly host: string; readonly path: string };
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: readonly (readonly [string, string])[];
  readonly tls: TlsFiles;
  readonly dialTimeoutMs?: number | undefined;
}

const ALL: ReadonlySet<Capability> = new Set(["pull", "resolve", "push", "referrers"]);
const HUB = "docker.io";
const HUB_HOST = "registry-1.docker.io";

export interface HostsOptions {
  /** `certs.d`, or several, of which the first decides that has a folder for the host. */
  readonly hostsDirectory?: string | readonly string[] | undefined;
  /** Where no folder is for the host. */
  readonly mirrors?: Mirrors | undefined;
  readonly defaultScheme?: string | undefined;
}

/** @throws InvalidArgument naming the file and key, what the file system says */
export function registryHosts(name: string, options: HostsOptions): RegistryHost[] {
  const { entries, origin } = entriesFor(name, options);
  return entries.map((entry) => complete(entry, name, options.defaultScheme ?? "", origin));
}

function entriesFor(name: string, { hostsDirectory = [], mirrors = {} }: HostsOptions) {
  for (const root of [hostsDirectory].flat().filter((path) => path !== "")) {
    const folder = folderOf(root, name);
    if (folder !== undefined) return readFolder(folder);
  }
  const mirrored = mirrorEntries(mirrors, name);
  if (mirrored === undefined) return { entries: [EMPTY], origin: `default for ${name}` };
  const entries = mirrored.map((entry) => (entry === "own" ? EMPTY : entry));
  return { entries, origin: `mirrors of ${name} in config.toml` };
}

const EMPTY: HostEntry = { capabilities: ALL, headers: [], tls: {} };

/** `host:port` is looked for as `host_port_`, then as it is, then `_default`. */
function folderOf(root: string, name: string): string | undefined {
  const colon = name.lastIndexOf(":");
  const escaped = colon > 0 ? [`${name.slice(0, colon)}_${name.slice(colon + 1)}_`] : [];
  for (const folder of [...escaped, name, "_default"].map((entry) => join(root, entry))) {
    try {
      if (statSync(folder, { throwIfNoEntry: false }) !== undefined) return folder;
    } catch (cause) {
      throw new BunkerdError("Unknown", `stat ${folder}: ${messageOf(cause)}`, { cause });
    }
  }
  return undefined;
}

function readFolder(folder: string): { readonly entries: readonly HostEntry[]; readonly origin: string } {
  const file = join(folder, "hosts.toml");
  try {
    const table = readToml(file);
    if (table.size > 0) return { entries: entriesOf(table, folder, file), origin: file };
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
  return { entries: [{ ...EMPTY, tls: certificatesIn(folder) }], origin: folder };
}

/** Docker's layout: `*.crt` are authorities, `x.cert` with `x.key` is what we show. */
function certificatesIn(folder: string): TlsFiles {
  const names = namesIn(folder);
  const ca = names.filter((name) => name.endsWith(".crt")).map((name) => join(folder, name));
  const client = names
    .filter((name) => name.endsWith(".cert"))
    .map((name): [string, string | undefined] => {
      const key = `${name.slice(0, -".cert".length)}.key`;
      return [join(folder, name), names.includes(key) ? join(folder, key) : undefined];
    });
  return { ...(ca.length > 0 ? { ca } : {}), ...(client.length > 0 ? { client } : {}) };
}

function namesIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name)
      .sort();
  } catch (cause) {
    throw new BunkerdError("Unknown", `read ${folder}: ${messageOf(cause)}`, { cause });
  }
}

function entriesOf(table: Table, folder: string, file: string): HostEntry[] {
  const hosts = table.get("host");
  if (hosts !== undefined && !isTable(hosts)) throw wrong(file, "host", "expected tables");
  const mirrors = [...(hosts ?? new Map<string, Node>())];
  if (mirrors.length > MAX_HOSTS) throw wrong(file, "host", `more than ${MAX_HOSTS} hosts`);
  const server = optionalText(table, "server", { folder, file, prefix: "" }) ?? "";
  return [
    ...mirrors.map(([url, entry]) => {
      const prefix = `host.${quote(url)}.`;
      if (!isTable(entry)) throw wrong(file, prefix.slice(0, -1), "expected a table");
      return entryOf(url, entry, { folder, file, prefix });
    }),
    entryOf(server, table, { folder, file, prefix: "" }),
  ];
}

interface Place {
  readonly folder: string;
  readonly file: string;
  readonly prefix: string;
}

function entryOf(url: string, table: Table, place: Place): HostEntry {
  const overridePath = optionalBoolean(table, "override_path", place) ?? false;
  const skipVerify = optionalBoolean(table, "skip_verify", place);
  const ca = settingOf(table, "ca", place);
  const client = settingOf(table, "client", place);
  const parsed = parseUrl(url, overridePath, place);
  return {
    ...(parsed === undefined ? {} : { url: parsed }),
    capabilities: capabilitiesOf(table, place),
    headers: headersOf(table, place),
    tls: {
      ...(skipVerify === undefined ? {} : { skipVerify }),
      ...(ca === undefined ? {} : { ca: textsOf(ca, "ca", place).map((path) => absolute(path, place)) }),
      ...(client === undefined ? {} : { client: clientPairs(client, place) }),
    },
    dialTimeoutMs: dialTimeoutOf(table, place),
  };
}

function parseUrl(text: string, overridePath: boolean, place: Place): HostEntry["url"] {
  if (text === "") return undefined;
  const whole = text.includes("://") ? text : `https://${text}`;
  // What was written decides about the path: URL gives one to `https://host`, too.
  const [, scheme, written] = /^(https?):\/\/[^/?#]+(\/[^?#]*)?$/.exec(whole) ?? [];
  const url = URL.parse(whole);
  if (url === null || scheme === undefined || url.username !== "" || url.password !== "") {
    const key = place.prefix === "" ? "server" : place.prefix.slice(0, -1);
    throw wrong(place.file, key, "unable to parse server: expected http(s)://host[:port][/path]");
  }
  const path = written === undefined ? "" : posix.normalize(url.pathname).replace(/\/$/, "");
  return {
    scheme: scheme === "http" ? "http" : "https",
    host: url.host,
    path: overridePath || path.endsWith("/v2") ? path : `${path}/v2`,
  };
}

function capabilitiesOf(table: Table, place: Place): ReadonlySet<Capability> {
  const value = settingOf(table, "capabilities", place);
  const names = value === undefined ? [] : textsOf(value, "capabilities", place);
  for (const name of names) {
    if (!ALL.has(name.toLowerCase() as Capability)) {
      throw wrong(place.file, `${place.prefix}capabilities`, `unknown capability ${quote(name)}`);
    }
  }
  return names.length === 0 ? ALL : new Set(names.map((name) => name.toLowerCase() as Capability));
}

function headersOf(table: Table, place: Place): [string, string][] {
  const headers = table.get("header");
  if (headers === undefined) return [];
  if (!isTable(headers)) throw wrong(place.file, `${place.prefix}header`, "expected a table");
  return [...headers.keys()].flatMap((name) => {
    const key = `header.${name}`;
    const inner = { ...place, prefix: `${place.prefix}header.` };
    const values = textsOf(settingOf(headers, name, inner) ?? "", name, inner);
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || values.some((value) => /[\r\n\0]/.test(value))) {
      throw wrong(place.file, `${place.prefix}${key}`, "no header of HTTP");
    }
    return values.map((value): [string, string] => [name, value]);
  });
}

function clientPairs(value: TomlValue, place: Place): [string, string | undefined][] {
  if (typeof value === "string") return [[absolute(value, place), undefined]];
  if (!Array.isArray(value))
    throw wrong(place.file, `${place.prefix}client`, "expected files or pairs of files");
  return value.map((item: TomlValue): [string, string | undefined] => {
    if (typeof item === "string") return [absolute(item, place), undefined];
    const [cert, key, ...more] = textsOf(item, "client", place);
    if (cert === undefined || key === undefined || more.length > 0) {
      throw wrong(place.file, `${place.prefix}client`, "invalid pair");
    }
    return [absolute(cert, place), absolute(key, place)];
  });
}

function dialTimeoutOf(table: Table, place: Place): number | undefined {
  const text = optionalText(table, "dial_timeout", place);
  if (text === undefined || text === "") return undefined;
  const durationMs = parseDuration(text);
  if (durationMs === undefined) {
    throw wrong(place.file, `${place.prefix}dial_timeout`, `invalid duration ${quote(text)}`);
  }
  return durationMs > 0 ? durationMs : undefined;
}

function absolute(path: string, { folder }: Place): string {
  return path.startsWith("/") ? path : join(folder, path);
}

function settingOf(table: Table, key: string, place: Place): TomlValue | undefined {
  const node = table.get(key);
  if (isTable(node)) throw wrong(place.file, `${place.prefix}${key}`, "expected a value, found a table");
  return node?.value;
}

function optionalText(table: Table, key: string, place: Place): string | undefined {
  const value = settingOf(table, key, place);
  if (value === undefined || typeof value === "string") return value;
  throw wrong(place.file, `${place.prefix}${key}`, "expected a text");
}

function optionalBoolean(table: Table, key: string, place: Place): boolean | undefined {
  const value = settingOf(table, key, place);
  if (value === undefined || typeof value === "boolean") return value;
  throw wrong(place.file, `${place.prefix}${key}`, "expected true or false");
}

function textsOf(value: TomlValue, key: string, place: Place): string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw wrong(place.file, `${place.prefix}${key}`, "expected texts");
}

function wrong(file: string, key: string, reason: string): BunkerdError {
  return new BunkerdError("InvalidArgument", `${file}: ${key}: ${reason}`);
}

/** The host of the name itself where no other is given, and TLS before plain http where it was set up. */
function complete(entry: HostEntry, name: string, defaultScheme: string, origin: string): RegistryHost {
  const named = entry.url ?? { ...defaultUrl(name, defaultScheme), path: "/v2" };
  const skipVerify =
    entry.tls.skipVerify ?? (entry.url === undefined ? defaultSkipVerify(name, defaultScheme) : undefined);
  const tls: TlsFiles = { ...entry.tls, ...(skipVerify === undefined ? {} : { skipVerify }) };
  const isSetUp = tls.ca !== undefined || tls.client !== undefined || tls.skipVerify !== undefined;
  const fallsBack = named.scheme === "http" && isSetUp && portOf(named.host) !== "80";
  return {
    scheme: fallsBack ? "https" : named.scheme,
    host: named.host,
    path: named.path,
    capabilities: entry.url === undefined ? ALL : entry.capabilities,
    headers: entry.headers,
    tls,
    fallsBack,
    dialTimeoutMs: entry.dialTimeoutMs,
    origin,
  };
}

function defaultUrl(name: string, defaultScheme: string): { scheme: "http" | "https"; host: string } {
  if (name === HUB) return { scheme: "https", host: HUB_HOST };
  if (defaultScheme !== "") return { scheme: schemeOf(defaultScheme), host: name };
  const isPlain = isLoopback(name) && !["", "443"].includes(portOf(name));
  return { scheme: isPlain ? "http" : "https", host: name };
}

function schemeOf(text: string): "http" | "https" {
  if (text === "http" || text === "https") return text;
  throw new BunkerdError("InvalidArgument", `default scheme ${quote(text)} is neither http nor https`);
}

function defaultSkipVerify(name: string, defaultScheme: string): true | undefined {
  return name !== HUB && defaultScheme === "" && isLoopback(name) && portOf(name) !== "80" ? true : undefined;
}

function portOf(host: string): string {
  return /:(\d+)$/.exec(host.replace(/^\[[^\]]*\]/, ""))?.[1] ?? "";
}

/** Whether the host answers for a name that is another's: it is told which (`?ns=`). */
export function isMirror({ host }: RegistryHost, name: string): boolean {
  return host !== name && !(name === HUB && host === HUB_HOST);
}
