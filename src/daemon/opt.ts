import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { type Parts, PluginType } from "./parts.ts";

/** As containerd makes them. */
const FOLDER_MODE = 0o711;

/**
 * Where `ctr install` puts programs and libraries of images, which shims and other programs of the daemon's are found in first (containerd's
 * `plugins/services/opt`). A machine whose folder cannot be made does without.
 */
export async function startOpt(parts: Parts, { optPath: path }: Config): Promise<void> {
  const name = { type: PluginType.internal, id: "opt", exports: { path } };
  await parts.startOptional(name, {}, () => {
    for (const [folder, variable] of [
      ["bin", "PATH"],
      ["lib", "LD_LIBRARY_PATH"],
    ] as const) {
      const whole = join(path, folder);
      mkdirSync(whole, { recursive: true, mode: FOLDER_MODE });
      process.env[variable] = `${whole}:${process.env[variable] ?? ""}`;
    }
    return {};
  });
}
