import { messageOf } from "../../model/errors.ts";

/** How a command or an attach ended, as the error stream tells it: kubelet's `remotecommand/status.go`. */
export interface StreamStatus {
  readonly status: "Success" | "Failure";
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes: readonly { readonly reason: string; readonly message: string }[] };
  readonly code?: number;
}

export const SUCCESS: StreamStatus = { status: "Success" };

/** Of a command that has run. */
export function exitStatus(command: readonly string[], code: number): StreamStatus {
  if (code === 0) return SUCCESS;
  return {
    status: "Failure",
    message: `command terminated with non-zero exit code: error executing command [${command.join(" ")}], exit code ${code}`,
    reason: "NonZeroExitCode",
    details: { causes: [{ reason: "ExitCode", message: String(code) }] },
  };
}

/** Of what could not be done. */
export function failureStatus(what: string, error: unknown): StreamStatus {
  return {
    status: "Failure",
    message: `Internal error occurred: ${what}: ${messageOf(error)}`,
    reason: "InternalError",
    code: 500,
  };
}

/** Before version 4 of `channel.k8s.io` the stream has the message of a failure only. */
export function encodeStatus(status: StreamStatus, json: boolean): Uint8Array {
  return Buffer.from(json ? JSON.stringify(status) : (status.message ?? ""));
}
