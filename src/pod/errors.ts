import { isError, messageOf } from "../model/errors.ts";

/** A runtime's failure as grpc-go prints it, and so kubelets do in events. */
export function rpcWords(error: unknown): string {
  return `rpc error: code = ${isError(error) ? error.code : "Unknown"} desc = ${messageOf(error)}`;
}

/** The same of a pull, of which kubelets leave an unknown code away (`cri-client/pkg/remote_image.go`). */
export function pullWords(error: unknown): string {
  return isError(error) && error.code !== "Unknown" ? rpcWords(error) : messageOf(error);
}

/** Why a step of a pod failed: a reason as in `state.waiting.reason`, and what happened. */
export class PodError extends Error {
  override readonly name = "PodError";
  readonly reason: PodErrorReason;

  constructor(reason: PodErrorReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** The kubelet's (`pkg/kubelet/container/sync_result.go`, `pkg/kubelet/images/types.go`, `kuberuntime_container.go`). */
export type PodErrorReason =
  | "ImagePullBackOff"
  | "ImageInspectError"
  | "ErrImagePull"
  | "RegistryUnavailable"
  | "SignatureValidationFailed"
  | "ErrImageNeverPull"
  | "InvalidImageName"
  | "CreateContainerConfigError"
  | "PreCreateHookError"
  | "CreateContainerError"
  | "PreStartHookError"
  | "RunContainerError"
  | "PostStartHookError"
  | "CrashLoopBackOff"
  | "KillContainerError"
  | "CreatePodSandboxError"
  | "KillPodSandboxError"
  | "FailedMount"
  | "ResizePodInPlaceError";
