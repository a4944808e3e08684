/** What the scanner found; `rune` is a character that starts no token. */
export type TokenKind = "end" | "quoted" | "value" | "field" | "separator" | "operator" | "illegal" | "rune";

/** `position` counts UTF-16 units of the input; `text` is the token as written. */
export interface Token {
  readonly kind: TokenKind;
  readonly position: number;
  readonly text: string;
}

const END = "";
const SPACE = /^[\t\n\v\f\r \u0085\p{Zs}\u2028\u2029]$/u;
const VALUE = /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u;
const FIELD = /^[A-Za-z0-9_]$/;
const QUOTES = '/|"';
const SEPARATORS = ",.";
const OPERATORS = "=!~";

/** Splits a filter into tokens. The grammar, its order of cases included, is that of containerd `pkg/filters/scanner.go`. */
export class Scanner {
  readonly #input: string;
  /** Start of the character read last. */
  #position = 0;
  /** Behind the character read last. */
  #next = 0;
  /** An operator came: what follows is a value. */
  #expectsValue = false;
  #error = "";

  constructor(input: string) {
    this.#input = input;
  }

  /** Why the first illegal token was illegal. */
  get error(): string {
    return this.#error;
  }

  /** Position behind the last token. */
  get offset(): number {
    return this.#next;
  }

  /** The next character, unread; empty at the end, undefined if it is illegal. */
  peek(): string | undefined {
    const [position, next] = [this.#position, this.#next];
    const rune = this.#read();
    [this.#position, this.#next] = [position, next];
    return rune;
  }

  scan(): Token {
    let rune = this.#read();
    while (rune !== undefined && SPACE.test(rune)) rune = this.#read();
    const start = this.#position;
    const token = (kind: TokenKind): Token => ({
      kind,
      position: start,
      text: this.#input.slice(start, this.#next),
    });
    if (rune === undefined) return { kind: "illegal", position: start, text: "" };
    if (rune === END) return { kind: "end", position: start, text: "" };
    if (QUOTES.includes(rune)) return token(this.#scanQuoted(rune) ? "quoted" : "illegal");
    if (SEPARATORS.includes(rune)) {
      this.#expectsValue = false;
      return token("separator");
    }
    if (OPERATORS.includes(rune)) {
      this.#skipWhile((next) => OPERATORS.includes(next));
      this.#expectsValue = true;
      return token("operator");
    }
    if (this.#expectsValue) {
      this.#skipWhile((next) => next !== "," && VALUE.test(next));
      this.#expectsValue = false;
      return token("value");
    }
    if (!FIELD.test(rune)) return token("rune");
    this.#skipWhile((next) => FIELD.test(next));
    return token("field");
  }

  #read(): string | undefined {
    this.#position = this.#next;
    const code = this.#input.codePointAt(this.#next);
    if (code === undefined) return END;
    const rune = String.fromCodePoint(code);
    this.#next += rune.length;
    if (code === 0xfffd || (code >= 0xd800 && code <= 0xdfff)) return this.#fail("rune error");
    if (code === 0) return this.#fail("unexpected null");
    return rune;
  }

  #skipWhile(accepts: (rune: string) => boolean): void {
    for (let rune = this.peek(); rune; rune = this.peek()) {
      if (!accepts(rune)) return;
      this.#read();
    }
  }

  /** Reads up to the closing quote; false if there is none or an escape is illegal. */
  #scanQuoted(quote: string): boolean {
    let legal = true;
    let rune = this.#read();
    while (rune !== quote) {
      if (rune === undefined || rune === END || rune === "\n") {
        this.#fail("quoted literal not terminated");
        return false;
      }
      if (rune !== "\\") {
        rune = this.#read();
        continue;
      }
      const escaped = this.#scanEscape(quote);
      legal &&= escaped.legal;
      rune = escaped.next;
    }
    return legal;
  }

  /** Reads one escape and the character behind it. */
  #scanEscape(quote: string): { next: string | undefined; legal: boolean } {
    const rune = this.#read();
    if (rune !== undefined && rune !== END) {
      if ("abfnrtv\\".includes(rune) || rune === quote) return { next: this.#read(), legal: true };
      if (/[0-7]/.test(rune)) return this.#scanDigits(rune, /^[0-7]$/, 3);
      if (rune === "x") return this.#scanDigits(this.#read(), /^[0-9A-Fa-f]$/, 2);
      if (rune === "u") return this.#scanDigits(this.#read(), /^[0-9A-Fa-f]$/, 4);
      if (rune === "U") return this.#scanDigits(this.#read(), /^[0-9A-Fa-f]$/, 8);
    }
    this.#fail("illegal escape sequence");
    return { next: rune, legal: false };
  }

  #scanDigits(
    first: string | undefined,
    digit: RegExp,
    count: number,
  ): { next: string | undefined; legal: boolean } {
    let next = first;
    for (let left = count; left > 0; left--) {
      if (next === undefined || !digit.test(next)) {
        this.#fail("illegal numeric escape sequence");
        return { next, legal: false };
      }
      next = this.#read();
    }
    return { next, legal: true };
  }

  #fail(reason: string): undefined {
    if (this.#error === "") this.#error = reason;
  }
}
