import { HOOK_POINTS, type HookPoint } from "../../model/hooks.ts";
import { isDeviceName, isVendorOrClass } from "./cdi.ts";

/*
 * What vendors of devices write to /etc/cdi (Container Device Interface specification 1.1, `specs-go/config.go`): JSON or YAML, by
 * root. Unknown fields are errors, as in CDI's own reader. Errors here are plain: a wrong file is reported, and its devices are missing.
 */

export interface CdiSpec {
  readonly path: string;
  readonly edits: CdiEdits;
  /** By name without vendor and class. */
  readonly devices: ReadonlyMap<string, CdiEdits>;
  /** `vendor.com/class`. */
  readonly kind: string;
}

export interface CdiEdits {
  readonly env: readonly string[];
  readonly deviceNodes: readonly CdiNode[];
  readonly netDevices: readonly { readonly hostInterfaceName: string; readonly name: string }[];
  readonly hooks: readonly CdiHook[];
  readonly mounts: readonly CdiMount[];
  readonly intelRdt: IntelRdt | undefined;
  readonly additionalGids: readonly number[];
}

export interface CdiNode {
  readonly path: string;
  readonly hostPath: string;
  readonly type: string;
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number | undefined;
  readonly permissions: string;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

export interface CdiHook {
  readonly hookName: HookPoint;
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly timeout: number | undefined;
}

export interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly options: readonly string[];
  readonly type: string;
}

export interface IntelRdt {
  readonly closID: string;
  readonly l3CacheSchema: string;
  readonly memBwSchema: string;
  readonly schemata: readonly string[] | undefined;
  readonly enableMonitoring: boolean;
}

const VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/** @throws Error saying what is wrong with it */
export function parseCdiSpec(text: string, path: string): CdiSpec {
  // YAML 1.1, which the reference reads, has octals with a mere 0 before them.
  const octals = text.replaceAll(/(\bfileMode["']?\s*:\s*)0([0-7]+)\b/g, "$10o$2");
  const top = fieldsOf(Bun.YAML.parse(octals), "spec", [
    "cdiVersion",
    "kind",
    "annotations",
    "devices",
    "containerEdits",
  ]);
  const kind = textOf(top, "kind");
  const [vendor = "", className = ""] = kind.split(/\/(.*)/s, 2);
  if (!isVendorOrClass(vendor) || !isVendorOrClass(className))
    throw new Error(`invalid kind ${JSON.stringify(kind)}`);
  const edits = parseEdits(top["containerEdits"]);
  const devices = new Map<string, CdiEdits>();
  let annotated = Object.keys(mapOf(top, "annotations")).length > 0;
  for (const item of listOf(top, "devices")) {
    const device = fieldsOf(item, "device", ["name", "annotations", "containerEdits"]);
    const name = textOf(device, "name");
    if (!isDeviceName(name)) throw new Error(`invalid device name ${JSON.stringify(name)}`);
    if (devices.has(name)) throw new Error(`multiple device ${JSON.stringify(name)}`);
    const ofDevice = parseEdits(device["containerEdits"]);
    if (isEmpty(ofDevice)) throw new Error(`invalid device ${JSON.stringify(name)}, empty device edits`);
    annotated ||= Object.keys(mapOf(device, "annotations")).length > 0;
    devices.set(name, ofDevice);
  }
  if (devices.size === 0) throw new Error("invalid spec, no devices");
  assertVersion(textOf(top, "cdiVersion"), { edits, devices, className, annotated });
  return { path, kind, edits, devices };
}

interface Features {
  readonly edits: CdiEdits;
  readonly devices: ReadonlyMap<string, CdiEdits>;
  readonly className: string;
  readonly annotated: boolean;
}

/** A spec may not use what its version does not have yet. */
function assertVersion(written: string, { edits, devices, className, annotated }: Features): void {
  const version = VERSIONS.indexOf(written.replace(/^v/, ""));
  if (version < 0) throw new Error(`invalid version ${JSON.stringify(written)}`);
  const all = [edits, ...devices.values()];
  const some = (uses: (one: CdiEdits) => boolean): boolean => all.some(uses);
  const needed = [
    some(
      ({ netDevices, intelRdt }) =>
        netDevices.length > 0 || intelRdt?.schemata !== undefined || intelRdt?.enableMonitoring === true,
    ) && "1.1.0",
    some(({ intelRdt, additionalGids }) => intelRdt !== undefined || additionalGids.length > 0) && "0.7.0",
    (annotated || className.includes(".")) && "0.6.0",
    ([...devices.keys()].some((name) => /^\d/.test(name)) ||
      some(({ deviceNodes }) => deviceNodes.some(({ hostPath }) => hostPath !== ""))) &&
      "0.5.0",
    some(({ mounts }) => mounts.some(({ type }) => type !== "")) && "0.4.0",
  ].find((found) => found !== false);
  if (needed !== undefined && version < VERSIONS.indexOf(needed))
    throw new Error(`the spec version must be at least v${needed}`);
}

function isEmpty({ intelRdt, ...lists }: CdiEdits): boolean {
  return intelRdt === undefined && Object.values(lists).every(({ length }) => length === 0);
}

function parseEdits(value: unknown): CdiEdits {
  const fields = fieldsOf(value ?? {}, "containerEdits", [
    "env",
    "deviceNodes",
    "netDevices",
    "hooks",
    "mounts",
    "intelRdt",
    "additionalGids",
  ]);
  return {
    env: variablesOf(fields),
    deviceNodes: listOf(fields, "deviceNodes").map(parseNode),
    netDevices: parseNetDevices(listOf(fields, "netDevices")),
    hooks: listOf(fields, "hooks").map(parseHook),
    mounts: listOf(fields, "mounts").map(parseMount),
    intelRdt: isAbsent(fields["intelRdt"]) ? undefined : parseIntelRdt(fields["intelRdt"]),
    additionalGids: listOf(fields, "additionalGids").map((gid) => integer(gid, "additionalGids")),
  };
}

function parseNode(value: unknown): CdiNode {
  const fields = fieldsOf(value, "device node", [
    "path",
    "hostPath",
    "type",
    "major",
    "minor",
    "fileMode",
    "permissions",
    "uid",
    "gid",
  ]);
  const path = textOf(fields, "path");
  const type = textOf(fields, "type");
  const permissions = textOf(fields, "permissions");
  if (path === "") throw new Error("invalid (empty) device path");
  if (!["", "b", "c", "u", "p"].includes(type))
    throw new Error(`device ${JSON.stringify(path)}: invalid type ${JSON.stringify(type)}`);
  if (permissions !== "none" && !/^[rwm]*$/.test(permissions)) {
    throw new Error(`device ${JSON.stringify(path)}: invalid permissions ${JSON.stringify(permissions)}`);
  }
  return {
    path,
    type,
    permissions,
    hostPath: textOf(fields, "hostPath"),
    major: integerOf(fields, "major") ?? 0,
    minor: integerOf(fields, "minor") ?? 0,
    fileMode: integerOf(fields, "fileMode"),
    uid: integerOf(fields, "uid"),
    gid: integerOf(fields, "gid"),
  };
}

function parseNetDevices(items: readonly unknown[]): CdiEdits["netDevices"] {
  const devices = items.map((item) => {
    const fields = fieldsOf(item, "net device", ["hostInterfaceName", "name"]);
    return { hostInterfaceName: textOf(fields, "hostInterfaceName"), name: textOf(fields, "name") };
  });
  for (const key of ["hostInterfaceName", "name"] as const) {
    const names = devices.map((device) => device[key]);
    if (names.includes("")) throw new Error(`invalid linux net device, empty ${key}`);
    if (new Set(names).size < names.length) throw new Error(`invalid linux net device, duplicate ${key}`);
  }
  return devices;
}

function parseHook(value: unknown): CdiHook {
  const fields = fieldsOf(value, "hook", ["hookName", "path", "args", "env", "timeout"]);
  const name = textOf(fields, "hookName");
  const hookName = HOOK_POINTS.find((point) => point === name);
  if (hookName === undefined) throw new Error(`invalid hook name ${JSON.stringify(name)}`);
  const path = textOf(fields, "path");
  if (path === "") throw new Error(`invalid hook ${JSON.stringify(name)} with empty path`);
  return {
    hookName,
    path,
    args: textsOf(fields, "args"),
    env: variablesOf(fields),
    timeout: integerOf(fields, "timeout"),
  };
}

function parseMount(value: unknown): CdiMount {
  const fields = fieldsOf(value, "mount", ["hostPath", "containerPath", "options", "type"]);
  const mount = {
    hostPath: textOf(fields, "hostPath"),
    containerPath: textOf(fields, "containerPath"),
    options: textsOf(fields, "options"),
    type: textOf(fields, "type"),
  };
  if (mount.hostPath === "") throw new Error("invalid mount, empty host path");
  if (mount.containerPath === "") throw new Error("invalid mount, empty container path");
  return mount;
}

function parseIntelRdt(value: unknown): IntelRdt {
  const fields = fieldsOf(value, "intelRdt", [
    "closID",
    "l3CacheSchema",
    "memBwSchema",
    "schemata",
    "enableMonitoring",
    // Of versions before 1.1.
    "enableCMT",
    "enableMBM",
  ]);
  const closID = textOf(fields, "closID");
  if (
    closID !== "/" &&
    (closID.length >= 4096 || closID === "." || closID === ".." || /[/\n]/.test(closID))
  ) {
    throw new Error("invalid ClosID");
  }
  return {
    closID,
    l3CacheSchema: textOf(fields, "l3CacheSchema"),
    memBwSchema: textOf(fields, "memBwSchema"),
    schemata: isAbsent(fields["schemata"]) ? undefined : textsOf(fields, "schemata"),
    enableMonitoring: fields["enableMonitoring"] === true,
  };
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown, what: string, known: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error(`${what}: expected an object`);
  const odd = Object.keys(value).find((key) => !known.includes(key));
  if (odd !== undefined) throw new Error(`${what}: unknown field ${JSON.stringify(odd)}`);
  return value as Fields;
}

function listOf(fields: Fields, key: string): readonly unknown[] {
  const value = fields[key];
  if (isAbsent(value)) return [];
  if (Array.isArray(value)) return value;
  throw new Error(`${key}: expected a list`);
}

function mapOf(fields: Fields, key: string): Fields {
  const value = fields[key];
  if (isAbsent(value)) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Fields;
  throw new Error(`${key}: expected an object`);
}

function textOf(fields: Fields, key: string): string {
  const value = fields[key];
  if (isAbsent(value)) return "";
  if (typeof value === "string") return value;
  throw new Error(`${key}: expected a text`);
}

function textsOf(fields: Fields, key: string): string[] {
  return listOf(fields, key).map((item) => {
    if (typeof item === "string") return item;
    throw new Error(`${key}: expected texts`);
  });
}

function variablesOf(fields: Fields): string[] {
  const variables = textsOf(fields, "env");
  const odd = variables.find((variable) => variable.indexOf("=") <= 0);
  if (odd === undefined) return variables;
  throw new Error(`invalid environment variable ${JSON.stringify(odd)}`);
}

function integerOf(fields: Fields, key: string): number | undefined {
  return isAbsent(fields[key]) ? undefined : integer(fields[key], key);
}

function integer(value: unknown, key: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value)) return value;
  throw new Error(`${key}: expected an integer`);
}

function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}
