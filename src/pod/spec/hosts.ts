/** The file that a pod's containers see as /etc/hosts: `pkg/kubelet/kubelet_pods.go`, `ensureHostsFile`. */
import type { PodSpec } from "../api/pod.ts";
import type { Node } from "./node.ts";

const OWN_NAMES = `# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
`;

interface Named {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: PodSpec;
}

export function hostsFile(
  { metadata, spec }: Named,
  podIps: readonly string[],
  { hostsFile: hosts }: Pick<Node, "hostsFile">,
): string {
  const hostname = podHostname({ metadata, spec });
  // As by a kubelet that has no cluster's domain to put behind it.
  const domain = spec.subdomain ? `${hostname}.${spec.subdomain}.${metadata.namespace}.svc.\t` : "";
  const own = podIps.map((ip) => `${ip}\t${domain}${hostname}\n`).join("");
  const base = spec.hostNetwork
    ? `# Kubernetes-managed hosts file (host network).\n${hosts}`
    : `${OWN_NAMES}${own}`;
  const aliases = spec.hostAliases ?? [];
  if (aliases.length === 0) return base;
  const lines = aliases.map(({ ip, hostnames = [] }) => `${[ip, ...hostnames].join("\t")}\n`);
  return `${base}\n# Entries added by HostAliases.\n${lines.join("")}`;
}

/** `truncatePodHostnameIfNeeded`: a kernel's host name has 63 characters, and ends in none of `-` and `.`. */
export function podHostname({ metadata, spec }: Named): string {
  const name = spec.hostname === undefined || spec.hostname === "" ? metadata.name : spec.hostname;
  return name.slice(0, 63).replace(/[-.]+$/, "");
}
