import { NamespaceMode, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import type { CriConfig, RuntimeHandlerConfig } from "../config/config.ts";
import { BunkerdError, quote } from "../model/errors.ts";

/** Says that a pod's workload is not trusted: `true`. */
const UNTRUSTED_ANNOTATION = "io.kubernetes.cri.untrusted-workload";
const UNTRUSTED_HANDLER = "untrusted";

/**
 * What the pod runs by: its RuntimeClass's handler, or the default for none (containerd `internal/cri/config` GetSandboxRuntime).
 * @throws Unknown if there is none of that name, or untrusted work wants the host
 */
export function handlerOf(
  config: CriConfig,
  pod: PodSandboxConfig | undefined,
  name: string,
): RuntimeHandlerConfig {
  const { default_runtime_name: byDefault, runtimes } = config.runtime.containerd;
  let handler = name;
  if (pod?.annotations[UNTRUSTED_ANNOTATION] === "true") {
    if (name !== "" && name !== UNTRUSTED_HANDLER) {
      throw new BunkerdError("Unknown", "untrusted workload with explicit runtime handler is not allowed");
    }
    if (wantsHost(pod))
      throw new BunkerdError("Unknown", "untrusted workload with host access is not allowed");
    handler = UNTRUSTED_HANDLER;
  }
  handler ||= byDefault;
  const found = Object.hasOwn(runtimes, handler) ? runtimes[handler] : undefined;
  if (found === undefined)
    throw new BunkerdError("Unknown", `no runtime for ${quote(handler)} is configured`);
  return found;
}

function wantsHost(pod: PodSandboxConfig): boolean {
  const options = pod.linux?.securityContext?.namespaceOptions;
  return [options?.network, options?.pid, options?.ipc].includes(NamespaceMode.NODE);
}
