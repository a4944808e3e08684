import { statSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { BootstrapParamsSchema, LogLevel } from "#gen/containerd/runtime/bootstrap/v1/bootstrap_pb.ts";
import { type DeleteResponse, DeleteResponseSchema } from "#gen/containerd/task/v2/shim_pb.ts";
import { type RuntimeInfo, RuntimeInfoSchema } from "#gen/containerd/types/introspection_pb.ts";
import { endOf, type Finished, type Program, runProgram } from "../lib/program.ts";
import { BunkerdError, fail, messageOf } from "../model/errors.ts";
import type { Bundle } from "./bundle.ts";

/** What a shim is told of the daemon: containerd's `pkg/shim/util.go`, `Command`. */
export interface ShimSettings {
  /** Paths of the daemon's sockets. */
  readonly address: string;
  readonly ttrpcAddress: string;
  /** The program that shims call as `PROGRAM publish`. */
  readonly publishBinary: string;
  readonly version: string;
  /** Where new shims make their socket; shims before containerd 2.3 have `/run/containerd/s`. */
  readonly socketDir: string;
  /** More environment, as `NAME=value`. */
  readonly env: readonly string[];
  /** Shims log all they do. */
  readonly debug: boolean;
}

export interface ShimCommand {
  /** The shim's path. */
  readonly program: string;
  readonly bundle: Bundle;
  readonly settings: ShimSettings;
  /** Of `start`: the shim's timers may be late, and those of all that it starts. */
  readonly lateTimers?: boolean;
}

/** How long a shim's `start` may take, as the reference gives its socket to answer (`pkg/shim`, `Connect`). */
const START_TIMEOUT_MS = 100_000;
const INFO_TIMEOUT_MS = 10_000;

/** Programs that read the options on stdin instead of bootstrap parameters, by path and time of their change. */
export type LegacyPrograms = Set<string>;

/**
 * Calls `start`, which leaves the shim running and answers how to reach it. Shims before containerd 2.3 may take what is on stdin
 * for the options alone, and do not know their type then: they are asked again, in their way, and from then on at once.
 * @param options the task's or the runtime's @throws Unknown with what the program printed
 */
export async function startShim(
  command: ShimCommand,
  options: Any | undefined,
  legacy: LegacyPrograms,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const { program, bundle, settings, lateTimers = false } = command;
  const start = (stdin: Uint8Array): Promise<Finished> =>
    runShim({
      args: [program, ...argumentsOf(command), "start"],
      env: environmentOf(command, settings.env),
      cwd: bundle.path,
      stdin,
      timeoutMs: START_TIMEOUT_MS,
      signal,
      lateTimers,
    });
  const optionsAlone = (): Uint8Array =>
    options === undefined ? new Uint8Array() : toBinary(AnySchema, options);
  const version = `${program} ${statSync(program, { throwIfNoEntry: false })?.mtimeMs}`;
  let finished = await start(legacy.has(version) ? optionsAlone() : bootstrapParams(command, options));
  if (finished.exitCode !== 0 && !legacy.has(version) && misread(finished, bundle.id)) {
    finished = await start(optionsAlone());
    if (finished.exitCode === 0) legacy.add(version);
  }
  // A shim may print warnings beside its address: only what is on stdout counts, unless it failed.
  if (finished.exitCode === 0) return finished.stdout;
  throw programError(finished, outputOf(finished));
}

/** An Any's type stands where the parameters have the id: `typeurl.UnmarshalAny` of what is no type. */
function misread(finished: Finished, id: string): boolean {
  return new TextDecoder().decode(outputOf(finished)).includes(`type with url ${id}: not found`);
}

function outputOf({ stdout, stderr }: Finished): Uint8Array {
  return Buffer.concat([stdout, stderr]);
}

function bootstrapParams({ bundle, settings }: ShimCommand, options: Any | undefined): Uint8Array {
  const params = create(BootstrapParamsSchema, {
    instanceId: bundle.id,
    namespace: bundle.namespace,
    logLevel: settings.debug ? LogLevel.DEBUG : LogLevel.INFO,
    containerdVersion: settings.version,
    containerdTtrpcAddress: settings.ttrpcAddress,
    containerdGrpcAddress: settings.address,
    containerdBinary: settings.publishBinary,
    extensions: options === undefined ? [] : [{ value: options }],
    ...(settings.socketDir === "" ? {} : { socketDir: settings.socketDir }),
  });
  return toBinary(BootstrapParamsSchema, params);
}

/** Calls `delete`, which kills and removes what a dead shim left of its container. @throws Unknown, DeadlineExceeded */
export async function deleteByShim(command: ShimCommand, timeoutMs: number): Promise<DeleteResponse> {
  const { program, bundle } = command;
  const finished = await runShim({
    args: [program, ...argumentsOf(command), "-bundle", bundle.path, "delete"],
    env: environmentOf(command, []),
    cwd: bundle.path,
    timeoutMs,
  });
  if (finished.exitCode !== 0) throw programError(finished, finished.stderr);
  return decodeOutput(program, () => fromBinary(DeleteResponseSchema, finished.stdout));
}

/** Calls `-info`: what the runtime is and can. @throws Unknown */
export async function askShim(
  program: string,
  options: Any | undefined,
  signal?: AbortSignal,
): Promise<RuntimeInfo> {
  const finished = await runShim({
    args: [program, "-info"],
    env: process.env,
    stdin: options === undefined ? new Uint8Array() : toBinary(AnySchema, options),
    timeoutMs: INFO_TIMEOUT_MS,
    signal,
  });
  if (finished.exitCode !== 0) throw programError(finished, finished.stderr);
  return decodeOutput(program, () => fromBinary(RuntimeInfoSchema, finished.stdout));
}

function argumentsOf({ bundle, settings }: ShimCommand): string[] {
  return [
    ...["-namespace", bundle.namespace],
    ...["-address", settings.address],
    ...["-publish-binary", settings.publishBinary],
    ...["-id", bundle.id],
    ...(settings.debug ? ["-debug"] : []),
  ];
}

function environmentOf(
  { bundle, settings }: ShimCommand,
  more: readonly string[],
): Record<string, string | undefined> {
  return {
    ...process.env,
    // Of the service manager's notifications the daemon is the only sender.
    NOTIFY_SOCKET: undefined,
    GOMAXPROCS: "2",
    MAX_SHIM_VERSION: "2",
    TTRPC_ADDRESS: settings.ttrpcAddress,
    GRPC_ADDRESS: settings.address,
    NAMESPACE: bundle.namespace,
    ...Object.fromEntries(more.map(splitVariable)),
  };
}

function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** Runs a shim's command. @throws Unknown if it cannot be started, DeadlineExceeded, Canceled */
async function runShim(program: Program): Promise<Finished> {
  program.signal?.throwIfAborted();
  let finished: Finished;
  try {
    finished = await runProgram(program);
  } catch (error) {
    throw new BunkerdError("Unknown", `fork/exec ${program.args[0]}: ${messageOf(error)}`, { cause: error });
  }
  if (finished.stopped === undefined) return finished;
  const [code, words] =
    finished.stopped === "deadline"
      ? (["DeadlineExceeded", "context deadline exceeded"] as const)
      : (["Canceled", "context canceled"] as const);
  const said = new TextDecoder().decode(finished.stderr).trim();
  throw new BunkerdError(code, `${said === "" ? "" : `${said}: `}shim killed after ${words}`);
}

function programError(finished: Finished, output: Uint8Array): BunkerdError {
  const said = new TextDecoder().decode(output).trim();
  const end = endOf(finished);
  return new BunkerdError("Unknown", said === "" ? end : `${said}: ${end}`);
}

function decodeOutput<T>(program: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw fail("Unknown", `${program} answered no message: ${messageOf(error)}`, { cause: error });
  }
}
