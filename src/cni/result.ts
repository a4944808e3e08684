/**
 * What plugins answer: interfaces, addresses, routes, DNS (CNI specification, section 5), in the shape of 1.0.0 and 1.1.0. Older shapes are
 * read into it and written from it, as `pkg/types/{020,040,100}` of the reference implementation convert.
 */
import { isIP } from "node:net";
import { BunkerdError, quote } from "../model/errors.ts";
import { isObject, type JsonObject, objectsMember, stringMember, stringsMember } from "./json.ts";
import { FIRST_VERSION, isAtLeast } from "./versions.ts";

export interface CniInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Path of the network namespace; left out of interfaces of the host. */
  readonly sandbox?: string;
  readonly socketPath?: string;
  readonly pciID?: string;
}

export interface CniIp {
  /** Index into the interfaces. */
  readonly interface?: number;
  /** With its prefix length: `10.1.0.5/16`. */
  readonly address: string;
  readonly gateway?: string;
}

/** As in JSON; `dst` is a network. Members beside these pass as they are. */
export interface CniRoute extends JsonObject {
  readonly dst: string;
  readonly gw?: string;
}

export interface CniDns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
}

const WHAT = "CNI result";
const KNOWN: ReadonlySet<string> = new Set(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);

/** Reads a result of any version. @throws InvalidArgument on an unknown version and on what is no result */
export function readResult(json: JsonObject): CniResult {
  const cniVersion = stringMember(json, "cniVersion", WHAT) || FIRST_VERSION;
  assertKnown(cniVersion);
  if (!isAtLeast(cniVersion, "0.3.0")) return readOldest(json, cniVersion);
  return {
    cniVersion,
    interfaces: objectsMember(json, "interfaces", WHAT).map(readInterface),
    ips: objectsMember(json, "ips", WHAT).map(readIp),
    routes: objectsMember(json, "routes", WHAT).map(readRoute),
    dns: readDns(json["dns"]),
  };
}

/** Before 0.3.0: one address of each family, each with its routes. */
function readOldest(json: JsonObject, cniVersion: string): CniResult {
  const configs = ["ip4", "ip6"].flatMap((key) => (isObject(json[key]) ? [json[key]] : []));
  return {
    cniVersion,
    interfaces: [],
    ips: configs.map((config) => readIp({ address: config["ip"], gateway: config["gateway"] })),
    routes: configs.flatMap((config) => objectsMember(config, "routes", WHAT).map(readRoute)),
    dns: readDns(json["dns"]),
  };
}

function readInterface(json: JsonObject): CniInterface {
  const text = (key: string): string | undefined => stringMember(json, key, WHAT);
  const [mac, sandbox, socketPath, pciID] = ["mac", "sandbox", "socketPath", "pciID"].map(text);
  const { mtu } = json;
  return {
    name: text("name") ?? "",
    ...(mac ? { mac } : {}),
    ...(typeof mtu === "number" && mtu !== 0 ? { mtu } : {}),
    ...(sandbox ? { sandbox } : {}),
    ...(socketPath ? { socketPath } : {}),
    ...(pciID ? { pciID } : {}),
  };
}

function readIp(json: JsonObject): CniIp {
  const address = stringMember(json, "address", WHAT) ?? "";
  assertCidr(address);
  const gateway = stringMember(json, "gateway", WHAT);
  if (gateway) assertIp(gateway);
  const index = json["interface"] ?? undefined;
  if (index !== undefined && !Number.isSafeInteger(index))
    throw new BunkerdError("InvalidArgument", `error parsing ${WHAT}: interface is no number`);
  return {
    ...(index === undefined ? {} : { interface: index as number }),
    address,
    ...(gateway ? { gateway } : {}),
  };
}

function readRoute(json: JsonObject): CniRoute {
  const dst = stringMember(json, "dst", WHAT) ?? "";
  assertCidr(dst);
  const gw = stringMember(json, "gw", WHAT);
  if (gw) assertIp(gw);
  const { gw: _gw, ...rest } = json;
  return { ...rest, dst, ...(gw ? { gw } : {}) };
}

function readDns(json: unknown): CniDns {
  if (!isObject(json)) return {};
  const list = (key: "nameservers" | "search" | "options") => {
    const items = stringsMember(json, key, WHAT);
    return items.length === 0 ? {} : { [key]: items };
  };
  const domain = stringMember(json, "domain", WHAT);
  return { ...list("nameservers"), ...(domain ? { domain } : {}), ...list("search"), ...list("options") };
}

function assertIp(text: string): void {
  if (isIP(text) === 0)
    throw new BunkerdError("InvalidArgument", `error parsing ${WHAT}: invalid IP address: ${quote(text)}`);
}

function assertCidr(text: string): void {
  const [, address = "", bits = ""] = /^([^/]*)\/(\d{1,3})$/.exec(text) ?? [];
  const family = isIP(address);
  if (family === 0 || Number(bits) > (family === 4 ? 32 : 128))
    throw new BunkerdError("InvalidArgument", `error parsing ${WHAT}: invalid CIDR address: ${quote(text)}`);
}

function assertKnown(version: string): void {
  if (!KNOWN.has(version))
    throw new BunkerdError("InvalidArgument", `unsupported CNI result version ${quote(version)}`);
}

/** A result as a plugin of that version expects it in `prevResult`. @throws InvalidArgument if the version cannot tell it */
export function writeResult(result: CniResult, cniVersion: string): JsonObject {
  const version = cniVersion || FIRST_VERSION;
  assertKnown(version);
  if (!isAtLeast(version, "0.3.0")) return writeOldest(result, version);
  const newest = isAtLeast(version, "1.0.0");
  const interfaces = result.interfaces.map(({ name, mac, sandbox, ...newer }) => ({
    name,
    ...(mac === undefined ? {} : { mac }),
    ...(sandbox === undefined ? {} : { sandbox }),
    ...(newest ? newer : {}),
  }));
  const ips = result.ips.map((ip) => (newest ? ip : { version: familyOf(ip.address), ...ip }));
  return {
    cniVersion: version,
    ...(interfaces.length === 0 ? {} : { interfaces }),
    ...(ips.length === 0 ? {} : { ips }),
    ...(result.routes.length === 0 ? {} : { routes: result.routes }),
    ...dnsMember(result.dns),
  };
}

/** The first address of each family is all that it can hold, and one it must have. */
function writeOldest(result: CniResult, cniVersion: string): JsonObject {
  const config = (family: "4" | "6"): JsonObject => {
    const ip = result.ips.find(({ address }) => familyOf(address) === family);
    if (ip === undefined) return {};
    const routes = result.routes
      .filter(({ dst }) => familyOf(dst) === family)
      .map(({ dst, gw }) => ({ dst, ...(gw === undefined ? {} : { gw }) }));
    const gateway = ip.gateway === undefined ? {} : { gateway: ip.gateway };
    return { [`ip${family}`]: { ip: ip.address, ...gateway, ...(routes.length === 0 ? {} : { routes }) } };
  };
  if (result.ips.length === 0)
    throw new BunkerdError("InvalidArgument", `cannot convert ${WHAT}: no valid IP addresses`);
  return { cniVersion, ...config("4"), ...config("6"), ...dnsMember(result.dns) };
}

function dnsMember(dns: CniDns): JsonObject {
  return Object.keys(dns).length === 0 ? {} : { dns };
}

function familyOf(cidr: string): "4" | "6" {
  return cidr.includes(":") ? "6" : "4";
}
