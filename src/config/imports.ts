import { readdirSync } from "node:fs";
import { dirname, isAbsolute, join, normalize } from "node:path";
import { fail, quote } from "../model/errors.ts";

/**
 * Absolute paths of a file's `imports`: relative ones start at the file's folder, a `*` makes a pattern, matches are
 * sorted (`resolveImports` of containerd's server config). A path without `*` is answered whether it exists or not.
 */
export function resolveImports(parent: string, imports: readonly string[]): string[] {
  return imports.flatMap((pattern) => {
    const path = isAbsolute(pattern) ? normalize(pattern) : join(dirname(parent), pattern);
    return path.includes("*") ? glob(path) : [path];
  });
}

/** Go's `filepath.Glob` for an absolute pattern: each segment on its own, hidden files included. */
function glob(pattern: string): string[] {
  let found = ["/"];
  const segments = pattern.split("/").filter((segment) => segment !== "");
  for (const [index, segment] of segments.entries()) {
    const last = index === segments.length - 1;
    if (!/[*?[\\]/.test(segment) && !last) {
      found = found.map((folder) => join(folder, segment));
      continue;
    }
    const matcher = matcherOf(segment);
    found = found.flatMap((folder) =>
      namesIn(folder)
        .filter((name) => matcher.test(name))
        .map((name) => join(folder, name)),
    );
  }
  return found.sort();
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // As Go's Glob: what cannot be read has no matches.
    return [];
  }
}

function matcherOf(segment: string): RegExp {
  let source = "";
  for (let at = 0; at < segment.length; at++) {
    const char = segment[at] ?? "";
    const close = char === "[" ? segment.indexOf("]", at + 2) : -1;
    if (char === "*") source += ".*";
    else if (char === "?") source += ".";
    else if (char === "\\" && at + 1 < segment.length) source += RegExp.escape(segment[++at] ?? "");
    else if (close > 0) {
      source += segment.slice(at, close + 1).replace(/\\(?!\])/g, "\\\\");
      at = close;
    } else source += RegExp.escape(char);
  }
  try {
    return new RegExp(`^${source}$`, "s");
  } catch (error) {
    throw fail("InvalidArgument", `syntax error in import pattern ${quote(segment)}`, { cause: error });
  }
}
