import { existsSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { BunkerdError, unquoted } from "../model/errors.ts";

/** Runtimes whose shim cleans up by itself when its task is deleted, and handles no mounts of its own. */
const RUNC_SHIM = "containerd-shim-runc-v2";

/** The program of a runtime's name: `io.containerd.runc.v2` is `containerd-shim-runc-v2`; undefined if it is no such name. */
export function shimProgram(runtime: string): string | undefined {
  const parts = runtime.split(".");
  return parts.length < 2 || parts[0] === "" ? undefined : `containerd-shim-${parts.slice(-2).join("-")}`;
}

/**
 * The shim's path: of a name in PATH, then beside the daemon's own program; or a path as it is. Looked up each time, so that
 * an upgrade of the shim is found. Source: `core/runtime/v2/shim_manager.go`, `resolveRuntimePath`.
 * @throws Unknown, as the reference's has no class
 */
export function resolveRuntime(runtime: string, self = process.execPath): string {
  if (runtime === "") throw new BunkerdError("Unknown", "no runtime name");
  if (isAbsolute(runtime)) {
    if (existsSync(runtime)) return runtime;
    throw new BunkerdError(
      "Unknown",
      `invalid custom binary path: stat ${unquoted(runtime)}: no such file or directory`,
    );
  }
  const program = runtime.includes("/") ? undefined : shimProgram(runtime);
  if (program === undefined) {
    const rule =
      "correct runtime name should be either format like `io.containerd.runc.v2` or a full path to the binary";
    throw new BunkerdError("Unknown", `invalid runtime name ${unquoted(runtime)}, ${rule}`);
  }
  const beside = join(dirname(self), program);
  // By itself it takes the PATH of the process's start, without what `ctr install` brought.
  const PATH = process.env["PATH"] ?? "";
  const found = Bun.which(program, { PATH }) ?? (existsSync(beside) ? beside : undefined);
  if (found !== undefined) return found;
  const names = `runtime ${JSON.stringify(runtime)} binary not installed ${JSON.stringify(program)}`;
  throw new BunkerdError("Unknown", `${names}: file does not exist`);
}

export function isRuncShim(path: string): boolean {
  return path.endsWith(`/${RUNC_SHIM}`);
}
