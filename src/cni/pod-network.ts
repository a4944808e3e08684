/** What plugins are told of a pod: `cniNamespaceOpts` of the reference (`internal/cri/server/sandbox_run.go`). */
import { type PodSandboxConfig, Protocol } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../model/errors.ts";
import type { JsonObject } from "./json.ts";
import { quantityValue } from "./quantity.ts";

export interface PodNetwork {
  /** Of the sandbox. */
  readonly id: string;
  /** Some handlers have networks of their own. */
  readonly runtimeHandler: string;
  /** Where the pod's network namespace is bound; it may be gone when the network is removed. */
  readonly netnsPath: string;
  /** `CNI_ARGS`. */
  readonly args: readonly (readonly [string, string])[];
  /** Capability arguments by their names; each plugin gets those that its configuration names. */
  readonly capabilityArgs: JsonObject;
}

export interface PodNetworkOptions {
  readonly id: string;
  readonly runtimeHandler: string;
  readonly netnsPath: string;
  readonly config: PodSandboxConfig;
}

const PROTOCOLS: Readonly<Record<number, string>> = {
  [Protocol.TCP]: "tcp",
  [Protocol.UDP]: "udp",
  [Protocol.SCTP]: "sctp",
};

/** @throws InvalidArgument for a bandwidth that is none */
export function podNetwork({ id, runtimeHandler, netnsPath, config }: PodNetworkOptions): PodNetwork {
  const { metadata, annotations, linux, dnsConfig } = config;
  const portMappings = config.portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      HostPort: hostPort,
      ContainerPort: containerPort,
      Protocol: PROTOCOLS[protocol] ?? String(protocol),
      HostIP: hostIp,
    }));
  const bandwidth = bandwidthOf(annotations);
  const dns = dnsConfig && {
    Servers: dnsConfig.servers,
    Searches: dnsConfig.searches,
    Options: dnsConfig.options,
  };
  const cgroupPath = linux?.cgroupParent ?? "";
  return {
    id,
    runtimeHandler,
    netnsPath,
    args: [
      ["IgnoreUnknown", "1"],
      ["K8S_POD_NAMESPACE", metadata?.namespace ?? ""],
      ["K8S_POD_NAME", metadata?.name ?? ""],
      ["K8S_POD_INFRA_CONTAINER_ID", id],
      ["K8S_POD_UID", metadata?.uid ?? ""],
    ],
    // Spelled as go-cni's structures are when Go writes them; plugins read them in any case.
    capabilityArgs: {
      "io.kubernetes.cri.pod-annotations": annotations,
      ...(portMappings.length === 0 ? {} : { portMappings }),
      ...(bandwidth === undefined ? {} : { bandwidth }),
      ...(dns === undefined ? {} : { dns }),
      ...(cgroupPath === "" ? {} : { cgroupPath }),
    },
  };
}

const MIN_BITS_PER_SECOND = 1e3;
const MAX_BITS_PER_SECOND = 1e15;
const BURST_BITS = 2 ** 32 - 1;

function bandwidthOf(annotations: Readonly<Record<string, string>>): JsonObject | undefined {
  const [ingress, egress] = ["ingress", "egress"].map((way) => {
    const text = annotations[`kubernetes.io/${way}-bandwidth`];
    return text === undefined ? undefined : rateOf(text);
  });
  if (ingress === undefined && egress === undefined) return undefined;
  const rates = (rate: number | undefined): [number, number] =>
    rate === undefined ? [0, 0] : [rate, BURST_BITS];
  const [IngressRate, IngressBurst] = rates(ingress);
  const [EgressRate, EgressBurst] = rates(egress);
  return { IngressRate, IngressBurst, EgressRate, EgressBurst };
}

/** Bits per second. */
function rateOf(text: string): number {
  const value = quantityValue(text);
  const refuse = (words: string): never => {
    throw new BunkerdError("InvalidArgument", `reading pod bandwidth annotations: ${words}`);
  };
  if (value === undefined) return refuse(`quantity ${quote(text)} is none`);
  if (value < MIN_BITS_PER_SECOND) return refuse("resource is unreasonably small (< 1kbit)");
  if (value > MAX_BITS_PER_SECOND) return refuse("resource is unreasonably large (> 1Pbit)");
  return value;
}
