import { create } from "@bufbuild/protobuf";
import {
  ContainerState,
  type ExecRequest,
  type ExecSyncRequest,
  type ExecSyncResponse,
  ExecSyncResponseSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { BunkerdError, fail, quote } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { enumName } from "../enums.ts";
import { CappedOutput, type ExecOptions, execInContainer } from "../io/exec.ts";
import { containerPaths } from "../paths.ts";
import { step } from "../records.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import type { ExecTarget, Session } from "../streaming/runtime.ts";

/** Of each output of ExecSync; the kubelet never sees more. */
const MAX_OUTPUT_BYTES = 16 << 20;

/** Runs a command to its end. Source of the rules: `internal/cri/server/container_execsync.go`. */
export async function execSync(
  cri: Cri,
  { containerId, cmd, timeout }: ExecSyncRequest,
  signal: AbortSignal,
): Promise<ExecSyncResponse> {
  const [stdout, stderr] = [new CappedOutput(MAX_OUTPUT_BYTES), new CappedOutput(MAX_OUTPUT_BYTES)];
  const options = {
    command: cmd,
    tty: false,
    streams: { stdout, stderr },
    timeoutMs: Number(timeout) * 1000,
  };
  const exitCode = await step("failed to exec in container", () => exec(cri, containerId, options, signal));
  const fields = { stdout: new Uint8Array(stdout.bytes()), stderr: new Uint8Array(stderr.bytes()), exitCode };
  return create(ExecSyncResponseSchema, fields);
}

/** Where a client may run a command. @throws NotFound, Unknown unless the container runs, InvalidArgument, ResourceExhausted */
export async function execUrl(cri: Cri, request: ExecRequest): Promise<string> {
  const found = await step(`failed to find container ${quote(request.containerId)} in store`, () =>
    cri.containers.get(request.containerId),
  );
  assertRuns(found);
  const { cmd: command, ...streams } = request;
  return (await cri.streaming.get()).execUrl({ ...streams, command });
}

/** Runs a client's command. */
export async function execForClient(
  cri: Cri,
  { containerId, command, tty }: ExecTarget,
  session: Session,
): Promise<number> {
  const options = { command, tty, streams: session, resize: session.resize, timeoutMs: 0 };
  return await step("failed to exec in container", () => exec(cri, containerId, options));
}

type Command = Pick<ExecOptions, "command" | "tty" | "streams" | "resize" | "timeoutMs">;

async function exec(cri: Cri, containerId: string, command: Command, signal?: AbortSignal): Promise<number> {
  const container = await step(`failed to find container ${quote(containerId)} in store`, () =>
    cri.containers.get(containerId),
  );
  assertRuns(container);
  const { id } = container;
  const { spec } = await step("failed to get container spec", () => cri.stores.containers.get(scopeOf(), id));
  if (spec === undefined) throw fail("NotFound", `spec of container ${quote(id)}`);
  const { process } = unpackSpec(spec) as Spec;
  return await execInContainer(cri, scopeOf(signal), {
    ...command,
    containerId: id,
    process,
    root: containerPaths(cri.folders, id).state,
    drainTimeoutMs: cri.config.runtime.drain_exec_sync_io_timeout,
  });
}

/** @throws Unknown */
export function assertRuns({ status }: Container): void {
  if (status.state === ContainerState.CONTAINER_RUNNING) return;
  const state = enumName(ContainerState, status.state);
  throw new BunkerdError("Unknown", `container is in ${state} state`);
}
