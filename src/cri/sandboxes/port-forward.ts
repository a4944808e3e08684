import { existsSync } from "node:fs";
import type { PortForwardRequest } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { step } from "../records.ts";
import type { ByteStream } from "../streaming/byte-stream.ts";
import { forwardToPod } from "../streaming/pod-connection.ts";

/** Where a client may connect to a pod's ports. @throws NotFound, Unknown unless the pod is ready, InvalidArgument, ResourceExhausted */
export async function portForwardUrl(cri: Cri, { podSandboxId, port }: PortForwardRequest): Promise<string> {
  const sandbox = await step(`failed to find sandbox ${quote(podSandboxId)}`, () =>
    cri.sandboxes.get(podSandboxId),
  );
  if (sandbox.status.state !== "ready") throw new BunkerdError("Unknown", "sandbox container is not running");
  return (await cri.streaming.get()).portForwardUrl({ podSandboxId, ports: port });
}

/** Carries one connection of a client. Source of the rules: `internal/cri/server/sandbox_portforward_linux.go`. */
export async function portForwardForClient(
  cri: Cri,
  podSandboxId: string,
  port: number,
  stream: ByteStream,
  gone: AbortSignal,
): Promise<void> {
  const { id, metadata } = await step(`failed to find sandbox ${quote(podSandboxId)} in store`, () =>
    cri.sandboxes.get(podSandboxId),
  );
  const { netnsPath } = metadata;
  if (netnsPath !== "" && !existsSync(netnsPath))
    throw new BunkerdError("Unknown", `network namespace for sandbox ${quote(id)} is closed`);
  await forwardToPod(netnsPath === "" ? undefined : netnsPath, port, stream, gone);
}
