import { NamespaceMode, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import type { CriConfig, RuntimeHandlerConfig } from "../config/config.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";

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

/**
 * Stdio by streams of the sandbox's shim (`io_type = "streaming"`) is not built. Runc's shim has none: the reference's words.
 * @throws Unknown, Unimplemented
 */
export function assertFifos({ io_type }: RuntimeHandlerConfig, shimAddress: string): void {
  if (io_type !== "streaming") return;
  if (shimAddress === "") throw new BunkerdError("Unknown", "address can not be empty for io stream");
  throw fail("Unimplemented", `stdio by streams of ${quote(shimAddress)}`);
}

function wantsHost(pod: PodSandboxConfig): boolean {
  const options = pod.linux?.securityContext?.namespaceOptions;
  return [options?.network, options?.pid, options?.ipc].includes(NamespaceMode.NODE);
}
