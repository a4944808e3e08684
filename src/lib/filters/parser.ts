import { Scanner, type Token } from "./scanner.ts";
import { unquote } from "./unquote.ts";

export type Operator = "present" | "==" | "!=" | "~=";

/** One condition on a field. `value` is empty and `valuePosition` meaningless for `present`. */
export interface Selector {
  readonly path: readonly string[];
  readonly operator: Operator;
  readonly value: string;
  readonly valuePosition: number;
}

/** How much of a filter an error shows on each side of the mistake. */
const CONTEXT_CHARACTERS = 512;

/** A filter that cannot be read. The message is containerd's and shows the place: `filters: parse error: [a >|?|< b]: …`. */
export class FilterSyntaxError extends Error {
  override readonly name = "FilterSyntaxError";

  constructor(input: string, position: number, reason: string) {
    super(`filters: parse error: [${showPlace(input, position)}]: ${reason}`);
  }
}

function showPlace(input: string, position: number): string {
  const before = input.slice(0, position);
  const shownBefore = before.length > CONTEXT_CHARACTERS ? `...${before.slice(-CONTEXT_CHARACTERS)}` : before;
  const code = input.codePointAt(position);
  if (code === undefined) return shownBefore;
  const place = String.fromCodePoint(code);
  const after = input.slice(position + place.length);
  const shownAfter = after.length > CONTEXT_CHARACTERS ? `${after.slice(0, CONTEXT_CHARACTERS)}...` : after;
  return `${shownBefore} >|${place}|< ${shownAfter}`;
}

/**
 * Reads `selector ("," selector)*`, where a selector is `field ("." field)* [operator value]`. The rules and the words of
 * errors are those of containerd `pkg/filters/parser.go`. @throws FilterSyntaxError
 */
export function parseSelectors(input: string): Selector[] {
  const parser: Parser = { input, scanner: new Scanner(input) };
  const selectors = [readSelector(parser)];
  for (let rune = parser.scanner.peek(); rune !== ""; rune = parser.scanner.peek()) {
    if (rune !== ",") throw mistake(parser, parser.scanner.offset, `unexpected input: ${rune ?? "\ufffd"}`);
    parser.scanner.scan();
    selectors.push(readSelector(parser));
  }
  return selectors;
}

interface Parser {
  readonly input: string;
  readonly scanner: Scanner;
}

function readSelector(parser: Parser): Selector {
  const path = readFieldPath(parser);
  const rune = parser.scanner.peek();
  if (rune === "," || rune === "") return { path, operator: "present", value: "", valuePosition: 0 };
  const operator = readOperator(parser);
  const token = parser.scanner.scan();
  const value = readValue(parser, token, operator === "~=");
  return { path, operator, value, valuePosition: token.position };
}

function readFieldPath(parser: Parser): string[] {
  const path = [readField(parser)];
  while (parser.scanner.peek() === ".") {
    parser.scanner.scan();
    path.push(readField(parser));
  }
  return path;
}

function readField(parser: Parser): string {
  const token = parser.scanner.scan();
  if (token.kind === "field") return token.text;
  if (token.kind === "quoted") return readQuoted(parser, token, false);
  throw mistake(parser, token.position, reasonOf(parser, token, "expected field or quoted"));
}

function readOperator(parser: Parser): Operator {
  const token = parser.scanner.scan();
  if (token.kind !== "operator") {
    throw mistake(parser, token.position, reasonOf(parser, token, 'expected an operator ("=="|"!="|"~=")'));
  }
  const { text } = token;
  if (text === "==" || text === "!=" || text === "~=") return text;
  throw mistake(parser, token.position, `unsupported operator "${text.slice(0, CONTEXT_CHARACTERS)}"`);
}

function readValue(parser: Parser, token: Token, isPattern: boolean): string {
  if (token.kind === "value" || token.kind === "field") return token.text;
  if (token.kind === "quoted") return readQuoted(parser, token, isPattern);
  throw mistake(parser, token.position, reasonOf(parser, token, "expected value or quoted"));
}

function readQuoted(parser: Parser, token: Token, isPattern: boolean): string {
  if (!isPattern && !token.text.startsWith('"')) {
    throw mistake(parser, token.position, "invalid quote encountered");
  }
  const text = unquote(token.text);
  if (text === undefined) throw mistake(parser, token.position, "unquoting failed: quote syntax error");
  return text;
}

function reasonOf(parser: Parser, token: Token, expectation: string): string {
  return token.kind === "illegal" ? parser.scanner.error : expectation;
}

function mistake(parser: Parser, position: number, reason: string): FilterSyntaxError {
  return new FilterSyntaxError(parser.input, position, reason);
}
