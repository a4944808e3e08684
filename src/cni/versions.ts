/** Versions of the CNI specification. */
import { BunkerdError } from "../model/errors.ts";

/** The newest that is spoken here. */
export const CURRENT_VERSION = "1.1.0";
/** What a configuration or a result without a version means. */
export const FIRST_VERSION = "0.1.0";

/** Negative if `one` is older than `other`, 0 if they are the same. @throws InvalidArgument if one is no version */
export function compareVersions(one: string, other: string): number {
  const [left, right] = [parse(one), parse(other)];
  const at = left.findIndex((number, index) => number !== right[index]);
  return at < 0 ? 0 : (left[at] ?? 0) - (right[at] ?? 0);
}

/** @throws InvalidArgument */
export function isAtLeast(version: string, minimum: string): boolean {
  return compareVersions(version, minimum) >= 0;
}

function parse(version: string): readonly number[] {
  const parts = (version === "" ? FIRST_VERSION : version).split(".");
  if (parts.length > 3 || !parts.every((part) => /^\d{1,9}$/.test(part)))
    throw new BunkerdError("InvalidArgument", `invalid CNI version ${JSON.stringify(version)}`);
  return [0, 1, 2].map((index) => Number(parts[index] ?? 0));
}
