/** Calls of plugins: CNI specification, section 2 (parameters in the environment, configuration on stdin, answers on stdout). */
import { statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { endOf, type Finished, runProgram } from "../lib/program.ts";
import { BunkerdError, isError, messageOf, quote } from "../model/errors.ts";
import { isObject, type JsonObject } from "./json.ts";
import { loopbackAnswer } from "./loopback.ts";

export type CniCommand = "ADD" | "DEL" | "CHECK" | "STATUS" | "GC";

export interface Invocation {
  readonly command: CniCommand;
  /** The plugin's name. */
  readonly type: string;
  /** Where plugins are, in the order of the search. */
  readonly binDirs: readonly string[];
  /** Left out of STATUS and GC. */
  readonly containerId?: string;
  /** Empty if it is gone already. */
  readonly netnsPath?: string;
  readonly interfaceName?: string;
  readonly args?: readonly (readonly [string, string])[];
  /** What the plugin reads. */
  readonly config: JsonObject;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The CNI project's, which end with all that they have started: nothing of a user's gets their timers, which may be late. */
const ENDS_WHOLE: ReadonlySet<string> = new Set(
  [
    ["bridge", "dummy", "host-device", "ipvlan", "loopback", "macvlan", "ptp", "vlan"],
    ["bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"],
  ].flat(),
);
/** Another process may still be writing the plugin: the reference waits as well (`pkg/invoke/raw_exec.go`). */
const BUSY_TRIES = 25;
const BUSY_PAUSE_MS = 200;

/**
 * Runs a plugin; answers what it printed, undefined if that is nothing. At the deadline and at the caller's abort it is killed with all that
 * it started. @throws Unknown with the plugin's message, Unavailable if it says to try again, DeadlineExceeded, Canceled
 */
export async function invokePlugin(invocation: Invocation): Promise<JsonObject | undefined> {
  const { type, binDirs, config, timeoutMs, signal } = invocation;
  const program = findPlugin(type, binDirs);
  const loopback = loopbackAnswer(invocation, program);
  if (loopback !== undefined) return loopback.json;
  for (let attempt = 1; ; attempt++) {
    try {
      const finished = await runProgram({
        args: [program],
        env: environmentOf(invocation),
        stdin: Buffer.from(JSON.stringify(config)),
        timeoutMs,
        signal,
        killGroup: true,
        lateTimers: ENDS_WHOLE.has(type),
      });
      return answerOf(finished);
    } catch (error) {
      if (isError(error)) throw error;
      if (signal?.aborted === true) throw new BunkerdError("Canceled", "netplugin not run: context canceled");
      if ((error as NodeJS.ErrnoException).code !== "ETXTBSY" || attempt === BUSY_TRIES)
        throw new BunkerdError("Unknown", `fork/exec ${program}: ${messageOf(error)}`, { cause: error });
      await Bun.sleep(BUSY_PAUSE_MS);
    }
  }
}

/** @throws NotFound, InvalidArgument if it is no plain name */
function findPlugin(type: string, binDirs: readonly string[]): string {
  if (type.includes("/")) throw new BunkerdError("InvalidArgument", `invalid plugin name: ${type}`);
  for (const folder of binDirs) {
    const path = join(folder, type);
    if (statSync(path, { throwIfNoEntry: false })?.isFile() === true) return path;
  }
  throw new BunkerdError("NotFound", `failed to find plugin ${quote(type)} in path [${binDirs.join(" ")}]`);
}

function environmentOf(invocation: Invocation): Record<string, string | undefined> {
  const { command, containerId = "", netnsPath = "", interfaceName = "", args = [], binDirs } = invocation;
  return {
    ...process.env,
    // Of the service manager's notifications the daemon is the only sender.
    NOTIFY_SOCKET: undefined,
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netnsPath,
    CNI_IFNAME: interfaceName,
    CNI_ARGS: args.map(([key, value]) => `${key}=${value}`).join(";"),
    CNI_PATH: binDirs.join(delimiter),
  };
}

function answerOf(finished: Finished): JsonObject | undefined {
  const { exitCode, stopped } = finished;
  const [stdout, stderr] = [textOf(finished.stdout), textOf(finished.stderr)];
  if (stopped === "deadline")
    throw new BunkerdError(
      "DeadlineExceeded",
      `netplugin killed after context deadline exceeded${said(stderr)}`,
    );
  if (stopped === "caller")
    throw new BunkerdError("Canceled", `netplugin killed after context canceled${said(stderr)}`);
  if (exitCode !== 0 || finished.signal !== null) throw pluginFailure(finished, stdout, stderr);
  if (stdout.trim() === "") return undefined;
  let answer: unknown;
  try {
    answer = JSON.parse(stdout);
  } catch (error) {
    throw new BunkerdError("Unknown", `failed to unmarshal raw result: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (answer === null) return undefined;
  if (isObject(answer)) return answer;
  throw new BunkerdError("Unknown", "failed to unmarshal raw result: not an object");
}

/** Error codes of the specification (section 2) that mean that another try may go well. */
const TRY_AGAIN: ReadonlySet<unknown> = new Set([11]);

function pluginFailure(finished: Finished, stdout: string, stderr: string): BunkerdError {
  const end = endOf(finished);
  if (stdout === "") {
    const words =
      stderr === ""
        ? `netplugin failed with no error message: ${end}`
        : `netplugin failed: ${quote(stderr)}: ${end}`;
    return new BunkerdError("Unknown", words);
  }
  let answer: unknown;
  try {
    answer = JSON.parse(stdout);
  } catch (error) {
    const words = `netplugin failed but error parsing its diagnostic message ${quote(stdout)}: ${messageOf(error)}`;
    return new BunkerdError("Unknown", words, { cause: error });
  }
  if (!isObject(answer)) return new BunkerdError("Unknown", `netplugin failed: ${quote(stdout)}: ${end}`);
  const [message, details] = [answer["msg"], answer["details"]].map((part) =>
    typeof part === "string" ? part : "",
  );
  return new BunkerdError(
    TRY_AGAIN.has(answer["code"]) ? "Unavailable" : "Unknown",
    `${message}${details ? `; ${details}` : ""}`,
  );
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function said(stderr: string): string {
  return stderr.trim() === "" ? "" : `: ${quote(stderr.trim())}`;
}
