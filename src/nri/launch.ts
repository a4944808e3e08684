/** Plugins that are installed: launched with their end of the connection as descriptor 3 (NRI's `newLaunchedPlugin`). */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { BunkerdError, messageOf, quote } from "../model/errors.ts";
import { type PluginName, parsePluginName } from "./names.ts";

export interface InstalledPlugin {
  readonly name: PluginName;
  readonly path: string;
  /** Text of its own configuration; empty if there is none. */
  readonly config: string;
}

/** Programs of the folder, in the order of their names; none if there is no such folder. @throws InvalidArgument for a name without an index */
export function installedPlugins(pluginPath: string, configPath: string): readonly InstalledPlugin[] {
  let names: string[];
  try {
    names = readdirSync(pluginPath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  return names
    .sort()
    .filter((name) => {
      const stat = statSync(join(pluginPath, name), { throwIfNoEntry: false });
      return stat?.isFile() === true && (stat.mode & 0o111) !== 0;
    })
    .map((file) => {
      const name = parsePluginName(file);
      return { name, path: join(pluginPath, file), config: configOf(configPath, file, name.base) };
    });
}

/** `<index>-<base>.conf` before `<base>.conf`. */
function configOf(folder: string, name: string, base: string): string {
  for (const file of [`${name}.conf`, `${base}.conf`]) {
    try {
      return readFileSync(join(folder, file), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return "";
}

export interface LaunchedPlugin {
  readonly socket: Socket;
  /** Kills it and waits for its end. */
  stop(): Promise<void>;
}

/** @throws Unknown if it cannot be started */
export async function launchPlugin({ name, path }: InstalledPlugin): Promise<LaunchedPlugin> {
  const child = spawn(path, [], {
    env: { NRI_PLUGIN_NAME: name.base, NRI_PLUGIN_IDX: name.index, NRI_PLUGIN_SOCKET: "3" },
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => {
      reject(
        new BunkerdError("Unknown", `failed to launch plugin ${quote(path)}: ${messageOf(error)}`, {
          cause: error,
        }),
      );
    });
  });
  const socket = child.stdio[3];
  if (!(socket instanceof Socket)) throw new Error("the fourth of a child's pipes is a socket");
  return {
    socket,
    stop: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
