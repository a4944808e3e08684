import { NamespaceMode, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { type PodNetwork, podNetwork } from "../cni/networks.ts";
import type { Cri } from "./cri.ts";
import type { GoValue } from "./store/go-json.ts";
import type { SandboxMetadata } from "./store/metadata.ts";

export function usesHostNetwork(config: PodSandboxConfig): boolean {
  return config.linux?.securityContext?.namespaceOptions?.network === NamespaceMode.NODE;
}

/** Attaches the pod's namespace to its networks. Answers the metadata with its addresses. @throws what the networks say */
export async function setUpNetwork(
  { networks }: Cri,
  pod: SandboxMetadata,
  signal: AbortSignal,
): Promise<Pick<SandboxMetadata, "ip" | "additionalIps" | "cniResult">> {
  const { ip, additionalIps, result } = await networks.add(networkOf(pod), signal);
  return { ip, additionalIps, cniResult: result as unknown as GoValue };
}

/** Detaches it; of one that is detached what is left. @throws what the networks say */
export async function tearDownNetwork(
  { networks }: Cri,
  pod: SandboxMetadata,
  signal: AbortSignal,
): Promise<void> {
  await networks.del(networkOf(pod), signal);
}

function networkOf({ id, runtimeHandler, netnsPath, config }: SandboxMetadata): PodNetwork {
  return podNetwork({ id, runtimeHandler, netnsPath, config });
}
