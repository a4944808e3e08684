import type { ContainerConfig } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { ImageConfig } from "../../model/image-config.ts";
import type { Process } from "./spec.ts";

const DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What runs: words, working directory, environment, terminal. @throws Unknown if neither request nor image says what to run */
export function applyProcess(
  process: Process,
  config: ContainerConfig,
  image: ImageConfig,
  hostname: string,
): void {
  process.args = words(config, image);
  if (config.workingDir !== "") process.cwd = config.workingDir;
  else if (image.workingDir !== "") process.cwd = image.workingDir;
  addEnvironment(process, [DEFAULT_PATH]);
  if (config.tty) {
    process.terminal = true;
    process.env.push("TERM=xterm");
  }
  addEnvironment(process, [`HOSTNAME=${hostname}`]);
  const asked = config.envs.map(({ key, value }) => `${key}=${decoder.decode(value)}`);
  addEnvironment(process, [...image.env, ...asked]);
}

/** Values are bytes; a spec is JSON, where Go too replaces what is no UTF-8. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Docker's rule: a command of the request replaces the image's entrypoint and words, words alone only the image's words. */
function words({ command, args }: ContainerConfig, image: ImageConfig): string[] {
  if (command.length > 0) return [...command, ...args];
  const entrypoint = image.entrypoint.length === 1 && image.entrypoint[0] === "" ? [] : image.entrypoint;
  const all = [...entrypoint, ...(args.length > 0 ? args : image.cmd)];
  if (all.length === 0) throw new BunkerdError("Unknown", "no command specified");
  return all;
}

/** A later value takes the place of an earlier one of that name; a name without `=` takes the variable away. */
export function addEnvironment(process: Process, variables: readonly string[]): void {
  if (variables.length === 0) return;
  const places = new Map(process.env.map((variable, index) => [nameOf(variable), index]));
  const merged: string[] = [...process.env];
  for (const variable of variables) {
    const place = places.get(nameOf(variable));
    if (!variable.includes("=")) {
      if (place !== undefined) merged[place] = "";
    } else if (place === undefined) merged.push(variable);
    else merged[place] = variable;
  }
  process.env = merged.filter((variable) => variable !== "");
}

function nameOf(variable: string): string {
  const end = variable.indexOf("=");
  return end < 0 ? variable : variable.slice(0, end);
}
