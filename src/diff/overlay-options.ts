/** Options of an overlay mount that name folders. */
export const LOWER = "lowerdir=";
export const UPPER = "upperdir=";
export const WORK = "workdir=";

/** The folder that an overlay writes to and those below it, nearest first; undefined if it is read-only. */
export function overlayLayers(
  options: readonly string[],
): { readonly upper: string; readonly lowers: readonly string[] } | undefined {
  let upper = "";
  let lowers: readonly string[] = [];
  for (const option of options) {
    if (option.startsWith(UPPER)) upper = option.slice(UPPER.length);
    else if (option.startsWith(LOWER)) lowers = option.slice(LOWER.length).split(":");
  }
  return upper === "" ? undefined : { upper, lowers };
}
