/** Names of plugins and marks of removal: NRI's `pkg/api/plugin.go`, `helpers.go`. */
import { BunkerdError, quote } from "../model/errors.ts";

export interface PluginName {
  /** Two digits: the order of the calls. */
  readonly index: string;
  readonly base: string;
}

/** Of a plugin's file: `10-logger`. @throws InvalidArgument */
export function parsePluginName(name: string): PluginName {
  const dash = name.indexOf("-");
  if (dash < 0)
    throw new BunkerdError("InvalidArgument", `invalid plugin name ${quote(name)}, idx-pluginname expected`);
  const [index, base] = [name.slice(0, dash), name.slice(dash + 1)];
  assertPluginIndex(index);
  return { index, base };
}

/** @throws InvalidArgument */
export function assertPluginIndex(index: string): void {
  if (!/^\d\d$/.test(index))
    throw new BunkerdError("InvalidArgument", `invalid plugin index ${quote(index)}, must be 2 digits`);
}

/** @throws InvalidArgument */
export function assertPluginBase(base: string): void {
  if (!/^[a-zA-Z0-9_.+-]+$/.test(base))
    throw new BunkerdError("InvalidArgument", `invalid plugin name ${quote(base)}`);
}

/** A key that is to be taken away is written with a leading `-`. */
export function markRemoved(key: string): string {
  return `-${key}`;
}

/** The key, and whether it is marked. */
export function unmarked(key: string): { readonly key: string; readonly removed: boolean } {
  return key.startsWith("-") ? { key: key.slice(1), removed: true } : { key, removed: false };
}
