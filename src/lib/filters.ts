/**
 * containerd's filter language (`pkg/filters`): `<fieldpath>[<operator><value>]`, joined by commas, all of which must match;
 * of several filters any must. Operators are `==`, `!=` and `~=` (a RE2 pattern); without one the field must be present.
 * Parts of a field path and values may be quoted as Go strings, patterns also as `/…/` and `|…|`.
 */

import { parseSelectors, type Selector } from "./filters/parser.ts";
import { compilePattern } from "./filters/pattern.ts";

export { FilterSyntaxError } from "./filters/parser.ts";

/** How a filter looks at an object. */
export interface Adaptor {
  /** The field's value, or undefined if it is absent. `path` is never empty; a label's key comes split at its dots. */
  field(path: readonly string[]): string | undefined;
}

export interface Filter {
  match(adaptor: Adaptor): boolean;
}

const always: Filter = { match: () => true };

/**
 * A filter that matches what any of `texts` matches, everything if there is none.
 * @throws FilterSyntaxError worded as containerd's; also, where containerd would silently match nothing, on a bad pattern
 */
export function parseFilters(texts: readonly string[]): Filter {
  const filters = texts.map(parseFilter);
  const [first] = filters;
  if (first === undefined) return always;
  if (filters.length === 1) return first;
  return { match: (adaptor) => filters.some((filter) => filter.match(adaptor)) };
}

/** One filter; the empty text matches everything. @throws FilterSyntaxError */
export function parseFilter(text: string): Filter {
  if (text === "") return always;
  const matchers = parseSelectors(text).map((selector) => matcherOf(selector, text));
  return { match: (adaptor) => matchers.every((matches) => matches(adaptor)) };
}

type Matcher = (adaptor: Adaptor) => boolean;

function matcherOf({ path, operator, value, valuePosition }: Selector, text: string): Matcher {
  switch (operator) {
    case "present":
      return (adaptor) => adaptor.field(path) !== undefined;
    case "==":
      return (adaptor) => adaptor.field(path) === value;
    case "!=":
      return (adaptor) => (adaptor.field(path) ?? "") !== value;
    case "~=": {
      const matches = compilePattern(value, valuePosition, text);
      return (adaptor) => matches(adaptor.field(path) ?? "");
    }
  }
}
