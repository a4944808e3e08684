/** What is wrong with an object whose fields are each of the right type. The words are those of `k8s.io/apimachinery/pkg/util/validation`. */
export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** Collects problems below a path. */
export class Problems {
  readonly found: Problem[];
  readonly #path: readonly (string | number)[];

  constructor(found: Problem[] = [], path: readonly (string | number)[] = []) {
    this.found = found;
    this.#path = path;
  }

  at(...path: readonly (string | number)[]): Problems {
    return new Problems(this.found, [...this.#path, ...path]);
  }

  add(message: string): void {
    this.found.push({ path: this.#path, message });
  }

  check(holds: boolean, message: string): void {
    if (!holds) this.add(message);
  }

  /** Exactly one of the fields, which stand side by side at this path, is set. */
  exactlyOne(fields: Readonly<Record<string, unknown>>, what: string): void {
    const set = Object.keys(fields).filter((name) => fields[name] !== undefined);
    if (set.length === 0) this.add(`must specify ${what}: one of ${Object.keys(fields).join(", ")}`);
    else if (set.length > 1) this.add(`may not specify more than one of ${set.join(", ")}`);
  }

  /** Each value once; undefined ones do not count. */
  unique(values: readonly (string | undefined)[], field: string): void {
    const seen = new Set<string>();
    values.forEach((value, index) => {
      if (value === undefined) return;
      if (seen.has(value)) this.at(index, field).add(`duplicate value ${JSON.stringify(value)}`);
      seen.add(value);
    });
  }
}

const LABEL = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;

export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && LABEL.test(text);
}

export function isDnsSubdomain(text: string): boolean {
  return text.length <= 253 && text.split(".").every((part) => LABEL.test(part));
}

export const DNS_LABEL =
  "must be at most 63 of a-z, 0-9 and '-', and begin and end with a letter or digit (RFC 1123 label)";
export const DNS_SUBDOMAIN =
  "must be at most 253 of a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit (RFC 1123 subdomain)";

/** `validation.IsValidLabelValue`, but for the empty one. */
export function isWord(text: string): boolean {
  return text.length <= 63 && /^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(text);
}

/** `validation.IsQualifiedName` */
export function isQualifiedName(key: string): boolean {
  const [name = "", prefix, ...rest] = key.split("/").reverse();
  return rest.length === 0 && isWord(name) && (prefix === undefined || isDnsSubdomain(prefix));
}

export const WORD =
  "must be at most 63 of letters, digits, '-', '_' and '.', and begin and end with a letter or digit";
export const QUALIFIED_NAME = `a key ${WORD}, behind a subdomain and '/' if it has a prefix`;

/** A relative path that stays below where it starts. */
export function isLocalPath(path: string): boolean {
  return !path.startsWith("/") && !path.split("/").includes("..");
}
export const LOCAL_PATH = "must be a relative path without '..'";
