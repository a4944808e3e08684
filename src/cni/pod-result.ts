/** What a pod's networks have in common: its interfaces, its addresses (go-cni's `createResult`, `selectPodIPs` of the reference). */
import { isIP } from "node:net";
import { BunkerdError } from "../model/errors.ts";
import type { CniDns, CniResult, CniRoute } from "./result.ts";

/** As the reference keeps it in a sandbox's metadata, `CNIResult`: Go's names and its `null` for what is empty. */
export interface SandboxCniResult {
  readonly Interfaces: Readonly<Record<string, SandboxInterface>>;
  readonly DNS: readonly CniDns[] | null;
  readonly Routes: readonly CniRoute[] | null;
}

export interface SandboxInterface {
  readonly IPConfigs: readonly { readonly IP: string; readonly Gateway: string }[] | null;
  readonly Mac: string;
  readonly Sandbox: string;
  readonly PciID: string;
  readonly SocketPath: string;
}

export interface PodNetworkResult {
  /** The pod's address by the configured preference. */
  readonly ip: string;
  readonly additionalIps: readonly string[];
  readonly result: SandboxCniResult;
}

const DEFAULT_INTERFACE = "eth0";

/** Of the results of all networks, in their order. @throws InvalidArgument, NotFound if `eth0` has no address */
export function podResult(results: readonly CniResult[], preference: string): PodNetworkResult {
  const result = combine(results);
  const addresses = result.Interfaces[DEFAULT_INTERFACE]?.IPConfigs ?? [];
  if (addresses.length === 0)
    throw new BunkerdError("NotFound", `failed to find network info: ${DEFAULT_INTERFACE} has no address`);
  const ips = addresses.map(({ IP }) => IP);
  const family = preference === "ipv6" ? 6 : 4;
  const preferred =
    preference === "cni"
      ? 0
      : Math.max(
          0,
          ips.findIndex((ip) => isIP(ip) === family),
        );
  return { ip: ips[preferred] ?? "", additionalIps: ips.toSpliced(preferred, 1), result };
}

function combine(results: readonly CniResult[]): SandboxCniResult {
  const interfaces = new Map([
    [DEFAULT_INTERFACE, { interface: emptyInterface(), ips: [] as { IP: string; Gateway: string }[] }],
  ]);
  for (const { interfaces: found, ips } of results) {
    for (const { name, mac = "", sandbox = "", pciID = "", socketPath = "" } of found) {
      const shown = { Mac: mac, Sandbox: sandbox, PciID: pciID, SocketPath: socketPath };
      interfaces.set(name, { interface: { ...emptyInterface(), ...shown }, ips: [] });
    }
    for (const { interface: index, address, gateway } of ips) {
      // Plugins that make one interface need not name it.
      const name = index === undefined ? DEFAULT_INTERFACE : found[index]?.name;
      const owner = name === undefined ? undefined : interfaces.get(name);
      if (owner === undefined)
        throw new BunkerdError(
          "InvalidArgument",
          `invalid interface config: interface ${index} of ${address}: invalid result`,
        );
      owner.ips.push({
        IP: canonicalIp(address),
        Gateway: gateway === undefined ? "" : canonicalIp(gateway),
      });
    }
  }
  const sorted = [...interfaces].sort(([one], [other]) => (one < other ? -1 : 1));
  const routes = results.flatMap((result) => result.routes);
  return {
    Interfaces: Object.fromEntries(
      sorted.map(([name, owner]) => [
        name,
        { ...owner.interface, IPConfigs: owner.ips.length === 0 ? null : owner.ips },
      ]),
    ),
    DNS: results.length === 0 ? null : results.map((result) => result.dns),
    Routes: routes.length === 0 ? null : routes,
  };
}

function emptyInterface(): SandboxInterface {
  return { IPConfigs: null, Mac: "", Sandbox: "", PciID: "", SocketPath: "" };
}

/** Without the prefix length, as Go prints it: IPv6 in its shortest form (RFC 5952), IPv4 in IPv6 as IPv4. */
function canonicalIp(text: string): string {
  const ip = text.split("/", 1)[0] ?? "";
  if (isIP(ip) !== 6) return ip;
  const shortest = new URL(`http://[${ip}]/`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(shortest) ?? [];
  if (high === undefined || low === undefined) return shortest;
  const words = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
  return words.flatMap((word) => [word >> 8, word & 255]).join(".");
}
