/** Escapes of one character in a Go string. */
const ESCAPES: Readonly<Record<string, number>> = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11, "\\": 92 };
const HEX_DIGITS: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };
const MAX_RUNE = 0x10_ffff;

/**
 * The text that a quoted literal stands for, or undefined if it is none. `quoted` includes its quotes, which are `"`, `/` or `|`;
 * escapes are Go's, the quote itself among them. `\x` and octal escapes are bytes, which must add up to UTF-8 to be matched.
 */
export function unquote(quoted: string): string | undefined {
  const quote = quoted[0];
  if (quote === undefined || quoted.length < 2 || quote !== quoted.at(-1)) return undefined;
  const body = quoted.slice(1, -1);
  if (body.includes("\n")) return undefined;
  if (!body.includes("\\")) return body.includes(quote) ? undefined : body;
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    const end = body.indexOf("\\", at);
    const plain = body.slice(at, end === -1 ? body.length : end);
    if (plain.includes(quote)) return undefined;
    parts.push(Buffer.from(plain));
    if (end === -1) break;
    const escaped = readEscape(body, end + 1, quote);
    if (escaped === undefined) return undefined;
    parts.push(escaped.bytes);
    at = escaped.next;
  }
  return Buffer.concat(parts).toString();
}

/** The escape whose character behind the backslash stands at `at`. */
function readEscape(body: string, at: number, quote: string): { bytes: Buffer; next: number } | undefined {
  const kind = body[at];
  if (kind === undefined) return undefined;
  if (kind === quote) return { bytes: Buffer.from(quote), next: at + 1 };
  const simple = ESCAPES[kind];
  if (simple !== undefined) return { bytes: Buffer.of(simple), next: at + 1 };
  const hexDigits = HEX_DIGITS[kind];
  const [start, end, base] = hexDigits === undefined ? [at, at + 3, 8] : [at + 1, at + 1 + hexDigits, 16];
  const digits = body.slice(start, end);
  const wellFormed = base === 8 ? /^[0-7]{3}$/ : /^[0-9A-Fa-f]+$/;
  if (digits.length !== end - start || !wellFormed.test(digits)) return undefined;
  const code = Number.parseInt(digits, base);
  if (kind === "u" || kind === "U") {
    if (code > MAX_RUNE) return undefined;
    return { bytes: Buffer.from(String.fromCodePoint(code)), next: end };
  }
  return code > 0xff ? undefined : { bytes: Buffer.of(code), next: end };
}
