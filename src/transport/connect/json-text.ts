/**
 * JSON as text. An Any's JSON payload must pass through character by character (spaces, order of keys, integers past
 * 2^53), so requests are cut into members where they stand instead of being parsed into values and printed again.
 */

/** One member of an object or one item of an array; `text` is the value as it stands in the source. */
export interface JsonMember {
  readonly key: string;
  readonly text: string;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;

/** @param text a JSON object, already known to be well-formed. Members in their order, doubles included. */
export function membersOf(text: string): JsonMember[] {
  const members: JsonMember[] = [];
  for (let at = skipSpace(text, text.indexOf("{") + 1); text.charCodeAt(at) === QUOTE; ) {
    const keyEnd = skipString(text, at);
    const from = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const to = skipValue(text, from);
    members.push({ key: JSON.parse(text.slice(at, keyEnd)) as string, text: text.slice(from, to) });
    at = skipSpace(text, to);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
  return members;
}

/** @param text a JSON array, already known to be well-formed. */
export function itemsOf(text: string): string[] {
  const items: string[] = [];
  let at = skipSpace(text, text.indexOf("[") + 1);
  while (text[at] !== "]") {
    const to = skipValue(text, at);
    items.push(text.slice(at, to));
    at = skipSpace(text, to);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
  return items;
}

/** What kind of value a well-formed JSON text holds. */
export function kindOf(text: string): "object" | "array" | "string" | "number" | "boolean" | "null" {
  switch (text.trimStart()[0]) {
    case "{":
      return "object";
    case "[":
      return "array";
    case '"':
      return "string";
    case "t":
    case "f":
      return "boolean";
    case "n":
      return "null";
    default:
      return "number";
  }
}

function skipSpace(text: string, at: number): number {
  for (;;) {
    const code = text.charCodeAt(at);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return at;
    at++;
  }
}

function skipString(text: string, at: number): number {
  for (let from = at + 1; ; ) {
    const quote = text.indexOf('"', from);
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}

function skipValue(text: string, at: number): number {
  let depth = 0;
  for (;;) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = skipString(text, at);
    } else if (code === 0x7b || code === 0x5b) {
      depth++;
      at++;
    } else if (code === 0x7d || code === 0x5d) {
      depth--;
      at++;
    } else if (code === COMMA || code === COLON || code <= 0x20) {
      at++;
    } else {
      while (!isDelimiter(text.charCodeAt(at))) at++;
    }
    if (depth === 0) return at;
  }
}

/** True behind the end of a number, `true`, `false` or `null`; NaN is the end of the text. */
function isDelimiter(code: number): boolean {
  return code === COMMA || code === 0x7d || code === 0x5d || code <= 0x20 || Number.isNaN(code);
}

type State = "value" | "firstValue" | "key" | "firstKey" | "colon" | "behind";

/**
 * Says where and how a text stops being JSON: `line 1, column 9: expected a value, found "foo"`. The engine's own
 * message does not name the place. Undefined for a text that is JSON.
 */
export function describeJsonError(text: string): string | undefined {
  const open: string[] = [];
  let state: State = "value";
  for (let at = skipSpace(text, 0); ; at = skipSpace(text, at)) {
    if (at === text.length && state === "behind" && open.length === 0) return undefined;
    const end = tokenEnd(text, at);
    const next: State | undefined = end === undefined ? undefined : step(open, state, text.charAt(at));
    if (end === undefined || next === undefined) return place(text, at, expectation(open, state));
    state = next;
    at = end;
  }
}

const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const LITERAL =
  /(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![0-9A-Za-z_.+-])/y;

/** The end of the token that begins at `at`; undefined if none does. */
function tokenEnd(text: string, at: number): number | undefined {
  const first = text.charAt(at);
  if (first !== "" && "{}[],:".includes(first)) return at + 1;
  if (first !== '"') return matchEnd(LITERAL, text, at);
  for (let to = at + 1; ; ) {
    const code = text.charCodeAt(to);
    if (code === QUOTE) return to + 1;
    const next: number | undefined =
      code === BACKSLASH ? matchEnd(ESCAPE, text, to) : code >= 0x20 ? to + 1 : undefined;
    if (next === undefined) return undefined;
    to = next;
  }
}

function matchEnd(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}

/** The state behind a token, told by its first character; undefined if the token may not stand here. */
function step(open: string[], state: State, token: string): State | undefined {
  const inside = open.at(-1);
  if (token === "}" || token === "]") {
    const opener = token === "}" ? "{" : "[";
    const empty = state === (token === "}" ? "firstKey" : "firstValue");
    if (inside !== opener || !(empty || state === "behind")) return undefined;
    open.pop();
    return "behind";
  }
  if (state === "key" || state === "firstKey") return token === '"' ? "colon" : undefined;
  if (state === "colon") return token === ":" ? "value" : undefined;
  if (state === "behind") {
    return token === "," && inside !== undefined ? (inside === "{" ? "key" : "value") : undefined;
  }
  if (token === "," || token === ":") return undefined;
  if (token !== "{" && token !== "[") return "behind";
  open.push(token);
  return token === "{" ? "firstKey" : "firstValue";
}

function expectation(open: readonly string[], state: State): string {
  if (state === "key" || state === "firstKey") return "a name in double quotes";
  if (state === "colon") return '":"';
  if (state !== "behind") return "a value";
  if (open.length === 0) return "the end";
  return open.at(-1) === "{" ? '"," or "}"' : '"," or "]"';
}

function place(text: string, at: number, expected: string): string {
  const before = text.slice(0, at).split("\n");
  const column = (before.at(-1)?.length ?? 0) + 1;
  const word = /^[^\s,:{}[\]]+/.exec(text.slice(at, at + 20))?.[0] ?? text.charAt(at);
  const found = word === "" ? "the end of the text" : JSON.stringify(word);
  return `line ${before.length}, column ${column}: expected ${expected}, found ${found}`;
}
