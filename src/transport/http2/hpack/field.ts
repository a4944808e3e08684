/** What a field name means to the engine. */
export const FieldKind = {
  regular: 0,
  method: 1,
  scheme: 2,
  path: 3,
  authority: 4,
  contentLength: 5,
  te: 6,
  cookie: 7,
  /** A pseudo-header that a request must not have: `:status`, `:protocol` or an unknown one. */
  wrongPseudo: 8,
  /** RFC 9113 section 8.2.2. */
  connectionSpecific: 9,
  /** Not a token in lower case: section 8.2.1. */
  invalidName: 10,
} as const;

export type FieldKind = (typeof FieldKind)[keyof typeof FieldKind];

const KINDS: ReadonlyMap<string, FieldKind> = new Map<string, FieldKind>([
  [":method", FieldKind.method],
  [":scheme", FieldKind.scheme],
  [":path", FieldKind.path],
  [":authority", FieldKind.authority],
  ["content-length", FieldKind.contentLength],
  ["te", FieldKind.te],
  ["cookie", FieldKind.cookie],
  ["connection", FieldKind.connectionSpecific],
  ["proxy-connection", FieldKind.connectionSpecific],
  ["keep-alive", FieldKind.connectionSpecific],
  ["transfer-encoding", FieldKind.connectionSpecific],
  ["upgrade", FieldKind.connectionSpecific],
]);

/** A token (RFC 9110 section 5.6.2) without upper case. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;

/** What RFC 9113 section 8.2.1 forbids in a value. */
const WRONG_VALUE = /[\0\r\n]|^[ \t]|[ \t]$/;

/** RFC 7541 section 4.1. */
export const FIELD_OVERHEAD_BYTES = 32;

/** One header field, read once: the tables share it with every header block that refers to it. */
export interface Field {
  readonly name: string;
  readonly value: string;
  readonly kind: FieldKind;
  readonly validValue: boolean;
  /** As the dynamic table and SETTINGS_MAX_HEADER_LIST_SIZE count it. */
  readonly sizeBytes: number;
}

export function kindOf(name: string): FieldKind {
  const kind = KINDS.get(name);
  if (kind !== undefined) return kind;
  if (name.startsWith(":")) return FieldKind.wrongPseudo;
  return NAME.test(name) ? FieldKind.regular : FieldKind.invalidName;
}

/** `name` and `value` hold one byte a character. */
export function makeField(name: string, value: string, kind: FieldKind): Field {
  return {
    name,
    value,
    kind,
    validValue: !WRONG_VALUE.test(value),
    sizeBytes: name.length + value.length + FIELD_OVERHEAD_BYTES,
  };
}

/** What is wrong with a field that is no pseudo-header: RFC 9113 sections 8.2.1 and 8.2.2. */
export function fieldProblem({ kind, name, validValue }: Field): string | undefined {
  if (kind === FieldKind.connectionSpecific) return `connection-specific field ${name}`;
  if (kind === FieldKind.invalidName) return "field name is no token in lower case";
  return validValue ? undefined : `value of field ${name} has forbidden characters`;
}
