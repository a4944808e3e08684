/** The head of an HTTP/1.1 request (RFC 9112) that asks for another protocol: this server answers nothing else. */

export interface RequestHead {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** By their names in lower case, in the order they came. */
  readonly headers: ReadonlyMap<string, readonly string[]>;
}

export const MAX_HEAD_BYTES = 16 << 10;

/** What came is no request. */
export class BadRequest extends Error {
  override readonly name = "BadRequest";
}

const REQUEST_LINE = /^([A-Z]+) (\/[\x21-\x7e]*) HTTP\/1\.1$/;
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const CONTROL = /(?!\t)\p{Cc}/u;

/** Where the head ends, behind its empty line; -1 if it has not come whole. @throws BadRequest if it is too long */
export function endOfHead(bytes: Buffer): number {
  const end = bytes.indexOf("\r\n\r\n");
  if ((end < 0 ? bytes.length : end) > MAX_HEAD_BYTES) throw new BadRequest("request head is too long");
  return end < 0 ? -1 : end + 4;
}

/** @param text up to the empty line @throws BadRequest */
export function parseHead(text: string): RequestHead {
  const [first = "", ...lines] = text.replace(/\r\n\r\n$/, "").split("\r\n");
  const [, method, target] = REQUEST_LINE.exec(first) ?? [];
  if (method === undefined || target === undefined) throw new BadRequest("malformed request line");
  const headers = new Map<string, string[]>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const value = line.slice(colon + 1).trim();
    if (colon < 0 || !NAME.test(line.slice(0, colon)) || CONTROL.test(value))
      throw new BadRequest("malformed header");
    const key = line.slice(0, colon).toLowerCase();
    const values = headers.get(key);
    if (values === undefined) headers.set(key, [value]);
    else values.push(value);
  }
  const [length = "0"] = headers.get("content-length") ?? [];
  if (length !== "0" || headers.has("transfer-encoding")) throw new BadRequest("a request body is not taken");
  return { method, path: target.replace(/\?.*$/, ""), headers };
}

/** The members of a header that is a list, over all its lines. */
export function listOf({ headers }: RequestHead, name: string): string[] {
  return (headers.get(name) ?? [])
    .flatMap((value) => value.split(","))
    .map((member) => member.trim())
    .filter((member) => member !== "");
}

/** True if the client would change to that protocol. */
export function asksFor(head: RequestHead, protocol: string): boolean {
  const members = (name: string): string[] => listOf(head, name).map((member) => member.toLowerCase());
  return members("connection").includes("upgrade") && members("upgrade").includes(protocol.toLowerCase());
}

/** A head without a body: what follows is the other protocol. */
export function switchingHead(fields: Readonly<Record<string, string>>): Buffer {
  return Buffer.from(`HTTP/1.1 101 Switching Protocols\r\n${fieldLines(fields)}\r\n`);
}

/** A whole answer, after which the connection is closed. */
export function refusal(
  status: number,
  reason: string,
  body: string,
  fields: Readonly<Record<string, string>> = {},
): Buffer {
  const text = `${body}\n`;
  const all = {
    ...fields,
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    Connection: "close",
    "Content-Length": String(Buffer.byteLength(text)),
  };
  return Buffer.from(`HTTP/1.1 ${status} ${reason}\r\n${fieldLines(all)}\r\n${text}`);
}

function fieldLines(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
}
