import type { ConfigFlags, LoadOptions } from "../config/load.ts";

/** Options of the program itself; they may stand before or behind the command, as with containerd before it. */
export interface GlobalOptions {
  readonly config?: string;
  readonly address?: string;
  readonly root?: string;
  readonly state?: string;
  readonly logLevel?: string;
}

export function loadOptionsOf(options: GlobalOptions): LoadOptions {
  const { address, root, state, logLevel } = options;
  const flags: ConfigFlags = { address, root, state, logLevel };
  return { path: options.config, flags };
}
