/** resolv.conf of a pod: `pkg/kubelet/network/dns/dns.go`. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DNSConfigSchema } from "#gen/runtime/v1/api_pb.ts";
import type { PodSpec } from "../api/pod.ts";
import type { Node } from "./node.ts";

const MAX_SERVERS = 3;
const MAX_SEARCHES = 32;

interface Dns {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

/**
 * Without a cluster there is no cluster's name server: ClusterFirst is Default, as in a kubelet that has none configured. The
 * pod's own dnsConfig is added to it.
 */
export function dnsConfig(
  { dnsPolicy, dnsConfig: own }: PodSpec,
  node: Node,
): MessageInitShape<typeof DNSConfigSchema> {
  const base = dnsPolicy === "None" ? parseResolvConf("") : parseResolvConf(node.resolvConf);
  const options = new Map(base.options.map((option) => [option.split(":")[0] ?? option, option]));
  for (const { name, value } of own?.options ?? []) {
    options.set(name, value === undefined || value === "" ? name : `${name}:${value}`);
  }
  return {
    servers: [...new Set([...base.servers, ...(own?.nameservers ?? [])])].slice(0, MAX_SERVERS),
    searches: [...new Set([...base.searches, ...(own?.searches ?? [])])].slice(0, MAX_SEARCHES),
    options: [...options.values()],
  };
}

export function parseResolvConf(text: string): Dns {
  const servers: string[] = [];
  let searches: string[] = [];
  let options: string[] = [];
  for (const line of text.split("\n")) {
    const [word, ...rest] = line
      .replace(/[#;].*/, "")
      .trim()
      .split(/\s+/);
    if (word === "nameserver" && rest[0] !== undefined) servers.push(rest[0]);
    if (word === "search") searches = rest.map((name) => (name === "." ? name : name.replace(/\.$/, "")));
    if (word === "options") options = rest;
  }
  return { servers, searches, options };
}
