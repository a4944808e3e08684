import { type Filter, FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import { BunkerdError, fail } from "../model/errors.ts";

/**
 * The filter of a list call. @throws InvalidArgument; containerd's parser and its stores both add the words of the class, so
 * they stand there twice
 */
export function listFilter(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", `${error.message}: invalid argument`);
  }
}

/** The filter of a content list, whose store adds nothing to the parser's words. @throws InvalidArgument */
export function walkFilter(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw new BunkerdError("InvalidArgument", `${error.message}: invalid argument`);
  }
}
