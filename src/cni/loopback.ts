/**
 * The CNI project's own `loopback`, carried out in this process: a program less to start for each pod, of the four that attach it. Only as CRI
 * calls it, and only where that very program would be run; whatever goes wrong here is asked of the program again, for its words.
 */
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { inNetworkNamespace, setInterfaceDown, setInterfaceUp } from "../linux/netns.ts";
import type { Invocation } from "./invoke.ts";
import type { JsonObject } from "./json.ts";

/** As go-cni configures it. */
export const LOOPBACK_CONFIG = { cniVersion: "0.3.1", name: "cni-loopback", type: "loopback" } as const;
/** Which program a Go executable is, in its build information. */
const BUILT_FROM = "path\tgithub.com/containernetworking/plugins/plugins/main/loopback\n";
/** `/proc/net/if_inet6` (proc(5)): `::1`. */
const HAS_IPV6 = /^0{31}1 .* lo$/m;

/** Whether programs are the CNI project's, by path and what tells that they have changed. */
const known = new Map<string, boolean>();

/** What the plugin would have answered; undefined if it is to be run. */
export function loopbackAnswer(invocation: Invocation, program: string): { json?: JsonObject } | undefined {
  const { command, config, netnsPath = "", signal } = invocation;
  if (!isConfig(config) || netnsPath === "" || signal?.aborted === true) return undefined;
  try {
    accessSync(program, constants.X_OK);
    if (!isProjects(program)) return undefined;
    if (command === "ADD") return { json: resultOf(netnsPath, inNetworkNamespace(netnsPath, bringUp)) };
    if (command !== "DEL") return undefined;
    inNetworkNamespace(netnsPath, () => setInterfaceDown("lo"));
    return {};
  } catch {
    return undefined;
  }
}

function isConfig(config: JsonObject): boolean {
  const given = Object.entries(config);
  const wanted: JsonObject = LOOPBACK_CONFIG;
  return given.length === Object.keys(wanted).length && given.every(([key, value]) => wanted[key] === value);
}

function isProjects(program: string): boolean {
  const { ino, size, mtimeMs, ctimeMs } = statSync(program);
  const key = `${program} ${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  const found = known.get(key) ?? readFileSync(program).includes(BUILT_FROM);
  // One program, and one more if it is replaced.
  if (!known.has(key)) known.clear();
  known.set(key, found);
  return found;
}

/** True if it has an address of IPv6. */
function bringUp(): boolean {
  setInterfaceUp("lo");
  return HAS_IPV6.test(readFileSync("/proc/thread-self/net/if_inet6", "latin1"));
}

function resultOf(sandbox: string, hasIpv6: boolean): JsonObject {
  const addresses = ["127.0.0.1/8", ...(hasIpv6 ? ["::1/128"] : [])];
  return {
    cniVersion: LOOPBACK_CONFIG.cniVersion,
    interfaces: [{ name: "lo", mac: "00:00:00:00:00:00", sandbox }],
    ips: addresses.map((address) => ({ interface: 0, address })),
  };
}
