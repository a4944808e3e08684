/** CRIU, which checkpoints need (`internal/cri/server/container_checkpoint_linux.go`, checkCriu). */
import { delimiter, isAbsolute } from "node:path";
import { endOf, runProgram } from "../../lib/program.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { systemReason } from "../system-errors.ts";

/** The first that dumps containers out of pods: 3.16 (go-criu `utils.PodCriuVersion`). */
const OLDEST = 31_600;
const VERSION_TIMEOUT_MS = 10_000;

/** @throws Unknown if it is switched off, not there, too old or does not run */
export async function assertCriu({ config, shimPath }: Cri): Promise<void> {
  if (!config.runtime.enable_criu) throw problem("criu support is disabled by configuration");
  const program = criuPath(shimPath);
  if (program === null) throw problem("criu binary not found in shim path or system PATH");
  const version = await versionOf(program, shimPath);
  if (version < OLDEST)
    throw problem(`checkpoint/restore requires at least CRIU ${OLDEST}, current version is ${version}`);
}

function problem(words: string): BunkerdError {
  return new BunkerdError("Unknown", words);
}

/** Where runc finds it: on the PATH that shims are given, if there is one. */
function criuPath(shimPath: string): string | null {
  if (shimPath === "") return Bun.which("criu");
  return Bun.which("criu", { PATH: shimPath.split(delimiter).filter(isAbsolute).join(delimiter) });
}

/** 40201 for 4.2.1. */
async function versionOf(program: string, shimPath: string): Promise<number> {
  const context = "failed to retrieve criu version: ";
  const env = shimPath === "" ? process.env : { ...process.env, PATH: shimPath };
  const args = [program, "--version"];
  const finished = await runProgram({
    args,
    env,
    timeoutMs: VERSION_TIMEOUT_MS,
    killGroup: true,
  }).catch((error: unknown) => {
    throw problem(`${context}${systemReason(error)}`);
  });
  const text = new TextDecoder().decode(finished.stdout);
  const match = /^Version: *(\d+)\.(\d+)(?:\.(\d+))?/m.exec(text);
  if (finished.exitCode !== 0) throw problem(`${context}${endOf(finished)}`);
  if (match === null) throw problem(`${context}it says none`);
  const [, major, minor, sublevel = 0] = match;
  return Number(major) * 10_000 + Number(minor) * 100 + Number(sublevel);
}
