import type { RE2JS } from "re2js";
import { FilterSyntaxError } from "./parser.ts";

/** Longest pattern that is compiled, in UTF-16 units. */
const MAX_PATTERN_LENGTH = 65_536;

/**
 * Compiles a RE2 pattern (what Go's `regexp` takes) to a test for a match anywhere in a text. Matching takes time linear in the
 * text, whatever the pattern. `position` is where the pattern stands in `filter`, for the error.
 * @throws FilterSyntaxError with the reason in Go's words
 */
export function compilePattern(pattern: string, position: number, filter: string): (text: string) => boolean {
  if (pattern.length > MAX_PATTERN_LENGTH) {
    throw new FilterSyntaxError(filter, position, `pattern longer than ${MAX_PATTERN_LENGTH} characters`);
  }
  const expression = compile(pattern, position, filter);
  return (text) => expression.test(text);
}

function compile(pattern: string, position: number, filter: string): RE2JS {
  try {
    return engine().compile(pattern);
  } catch (error) {
    const reason =
      error instanceof RangeError ? "expression nests too deeply" : String((error as Error).message);
    throw new FilterSyntaxError(filter, position, reason.slice(0, 512));
  }
}

/** The engine is loaded by the first pattern: its Unicode tables cost 4 MB that most daemons never need. */
function engine(): typeof RE2JS {
  return (require("re2js") as { RE2JS: typeof RE2JS }).RE2JS;
}
