/**
 * Go's `path.Match`: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are classes, a backslash takes the next character as it is.
 * A malformed pattern matches nothing.
 */
export function matchesPattern(pattern: string, name: string): boolean {
  const source = toRegExp([...pattern]);
  return source !== undefined && new RegExp(`^${source}$`, "su").test(name);
}

function toRegExp(pattern: readonly string[]): string | undefined {
  let source = "";
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at] ?? "";
    if (character === "*") source += "[^/]*";
    else if (character === "?") source += "[^/]";
    else if (character === "[") {
      const found = characterClass(pattern, at + 1);
      if (found === undefined) return undefined;
      source += found.source;
      at = found.end;
    } else if (character === "\\") {
      const next = pattern[++at];
      if (next === undefined) return undefined;
      source += escaped(next);
    } else source += escaped(character);
  }
  return source;
}

/** `end` is where the closing bracket stands. */
function characterClass(
  pattern: readonly string[],
  start: number,
): { source: string; end: number } | undefined {
  let at = start;
  const negated = pattern[at] === "^";
  if (negated) at++;
  let source = "";
  for (let ranges = 0; ; ranges++) {
    if (pattern[at] === "]" && ranges > 0) return { source: `[${negated ? "^" : ""}${source}]`, end: at };
    const low = classCharacter(pattern, at);
    if (low === undefined) return undefined;
    at = low.next;
    if (pattern[at] !== "-") {
      source += escaped(low.character);
      continue;
    }
    const high = classCharacter(pattern, at + 1);
    if (high === undefined) return undefined;
    at = high.next;
    // An empty range matches nothing and is no error.
    const [from, to] = [low.character.codePointAt(0) ?? 0, high.character.codePointAt(0) ?? 0];
    if (from <= to) source += `${escaped(low.character)}-${escaped(high.character)}`;
  }
}

function classCharacter(
  pattern: readonly string[],
  at: number,
): { character: string; next: number } | undefined {
  let place = at;
  if (pattern[place] === "-" || pattern[place] === "]") return undefined;
  if (pattern[place] === "\\") place++;
  const character = pattern[place];
  return character === undefined ? undefined : { character, next: place + 1 };
}

function escaped(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
