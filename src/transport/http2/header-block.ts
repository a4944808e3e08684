import { isGrpc } from "../grpc/content-type.ts";
import { type Field, FieldKind, fieldProblem } from "./hpack/field.ts";

/** A request's header section, checked. Shared by the requests of a connection that repeat it. */
export interface RequestHead {
  readonly method: string;
  /** Empty for CONNECT, which has none. */
  readonly path: string;
  readonly scheme: string;
  readonly authority: string | undefined;
  /** Regular fields in order. */
  readonly fields: readonly Field[];
  /** Undefined if the request does not say. */
  readonly contentLength: number | undefined;
  readonly grpc: boolean;
  /** Fields that were asked for: the code's names, so that they are few. */
  readonly asked: Map<string, string | undefined>;
}

/** What a decoded header block means, found out when it is asked for and then kept. */
export class HeaderBlock {
  readonly #fields: readonly Field[];
  /** The list was over the limit and is not whole. */
  readonly oversize: boolean;
  #head: RequestHead | string | undefined;

  constructor(fields: readonly Field[], oversize: boolean) {
    this.#fields = fields;
    this.oversize = oversize;
  }

  /** The head of a request, or what makes it malformed (RFC 9113 sections 8.2 and 8.3). */
  get request(): RequestHead | string {
    this.#head ??= readHead(this.#fields);
    return this.#head;
  }

  /** What makes trailers malformed, undefined if nothing does. Their fields mean nothing to gRPC or Connect. */
  get trailersProblem(): string | undefined {
    for (const field of this.#fields) {
      if (isPseudo(field)) return `pseudo-header ${field.name} in trailers`;
      const problem = problemOf(field);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }
}

function isPseudo({ kind }: Field): boolean {
  return (kind >= FieldKind.method && kind <= FieldKind.authority) || kind === FieldKind.wrongPseudo;
}

function problemOf(field: Field): string | undefined {
  if (field.kind === FieldKind.te && field.value !== "trailers") return "te is not trailers";
  return fieldProblem(field);
}

const PSEUDO_NAMES = [":method", ":scheme", ":path", ":authority"] as const;

function readHead(fields: readonly Field[]): RequestHead | string {
  const pseudo: (string | undefined)[] = [undefined, undefined, undefined, undefined];
  const regular: Field[] = [];
  let contentLength: number | undefined;
  let contentType: string | undefined;
  for (const field of fields) {
    const { kind, name, value } = field;
    if (kind === FieldKind.wrongPseudo) return `pseudo-header ${name} in a request`;
    const problem = problemOf(field);
    if (problem !== undefined) return problem;
    if (isPseudo(field)) {
      const at = kind - FieldKind.method;
      if (regular.length > 0) return `pseudo-header ${name} behind a regular field`;
      if (pseudo[at] !== undefined) return `pseudo-header ${name} twice`;
      pseudo[at] = value;
      continue;
    }
    if (kind === FieldKind.contentLength) {
      const length = /^\d{1,15}$/.test(value) ? Number(value) : -1;
      if (length < 0 || (contentLength !== undefined && contentLength !== length))
        return "content-length is no number";
      contentLength = length;
    }
    if (name === "content-type") contentType ??= value;
    regular.push(field);
  }
  const [method, scheme, path, authority] = pseudo;
  const problem = method === "CONNECT" ? connectProblem(pseudo) : missing(pseudo);
  if (problem !== undefined) return problem;
  return {
    method: method ?? "",
    path: path ?? "",
    scheme: scheme ?? "",
    authority,
    fields: regular,
    contentLength,
    grpc: method !== "CONNECT" && isGrpc(contentType),
    asked: new Map(),
  };
}

/** Section 8.3.1. */
function missing(pseudo: readonly (string | undefined)[]): string | undefined {
  const at = pseudo.findIndex((value, index) => index < 3 && (value === undefined || value === ""));
  return at < 0 ? undefined : `pseudo-header ${PSEUDO_NAMES[at]} is missing or empty`;
}

/** Section 8.5. */
function connectProblem([, scheme, path, authority]: readonly (string | undefined)[]): string | undefined {
  if (scheme !== undefined || path !== undefined) return "CONNECT with :scheme or :path";
  return authority === undefined ? "CONNECT without :authority" : undefined;
}

/** The value of `name` as `GrpcStream.header` gives it. */
export function fieldOf(head: RequestHead, name: string): string | undefined {
  const known = head.asked.get(name);
  if (known !== undefined || head.asked.has(name)) return known;
  const found = findField(head, name);
  head.asked.set(name, found);
  return found;
}

function findField(head: RequestHead, name: string): string | undefined {
  let found: string | undefined;
  for (const field of head.fields) {
    if (field.name !== name) continue;
    if (found === undefined) found = field.value;
    else found += (field.kind === FieldKind.cookie ? "; " : ", ") + field.value;
  }
  return found === undefined && name === "host" ? head.authority : found;
}
