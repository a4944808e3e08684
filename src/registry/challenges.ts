import { MAX_CHALLENGE_CHARACTERS } from "./limits.ts";

/** What a registry asks for (`WWW-Authenticate`, RFC 9110 §11.6.1). */
export interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const PARAMETER = new RegExp(`^\\s*(${TOKEN})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN}))\\s*,?`);
const SCHEME = new RegExp(`^[\\s,]*(${TOKEN})(?:\\s+|,|$)`);

/**
 * Reads a header's value, in which several challenges may follow each other; stops at what is none, and misses no comma between parameters.
 * Strongest first: bearer, basic.
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  for (let rest = header.slice(0, MAX_CHALLENGE_CHARACTERS); rest.trim() !== ""; ) {
    const parameter = PARAMETER.exec(rest);
    const last = challenges.at(-1);
    if (parameter !== null && last !== undefined) {
      const [whole, name = "", quoted, token = ""] = parameter;
      last.parameters.set(name.toLowerCase(), quoted?.replaceAll(/\\(.)/g, "$1") ?? token);
      rest = rest.slice(whole.length);
      continue;
    }
    const scheme = SCHEME.exec(rest);
    if (scheme === null) break;
    challenges.push({ scheme: (scheme[1] ?? "").toLowerCase(), parameters: new Map() });
    rest = rest.slice(scheme[0].length);
  }
  const order = ["bearer", "basic"];
  const known = challenges.filter(({ scheme }) => order.includes(scheme));
  return known.sort((a, b) => order.indexOf(a.scheme) - order.indexOf(b.scheme));
}
