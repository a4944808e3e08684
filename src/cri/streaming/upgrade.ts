import { createHash } from "node:crypto";
import { asksFor, listOf, type RequestHead, refusal } from "./request-head.ts";

/** The protocol that a request is answered with. */
export interface Upgrade {
  readonly kind: "spdy" | "webSocket";
  /** The subprotocol; empty for a WebSocket client that names none. */
  readonly protocol: string;
  /** Of the answer's head. */
  readonly fields: Readonly<Record<string, string>>;
}

export interface Refused {
  readonly kind: "refused";
  readonly answer: Uint8Array;
}

export interface Supported {
  readonly spdy: readonly string[];
  readonly webSocket: readonly string[];
}

const VERSION_HEADER = "X-Stream-Protocol-Version";
const ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions";
const SPDY = "SPDY/3.1";
/** RFC 6455, section 4.2.2. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET_VERSION = "13";

/** Kubelet's `httpstream.go`, `Handshake`, and `wsstream/conn.go`. */
export function upgradeOf(head: RequestHead, supported: Supported): Upgrade | Refused {
  if (asksFor(head, "websocket")) return webSocketUpgrade(head, supported.webSocket);
  const count = head.headers.size;
  const clients = listOf(head, VERSION_HEADER.toLowerCase());
  if (clients.length === 0)
    return badRequest(
      `unable to upgrade: header ${VERSION_HEADER} does not exist in request with ${count} headers`,
    );
  const protocol = clients.find((name) => supported.spdy.includes(name));
  if (protocol === undefined) {
    const reason = `client supports [${clients.join(" ")}], server accepts [${supported.spdy.join(" ")}]`;
    const text = `unable to upgrade: unable to negotiate protocol: ${reason}`;
    return refused(403, "Forbidden", text, { [ACCEPTED_HEADER]: supported.spdy.join(", ") });
  }
  if (!asksFor(head, SPDY)) return badRequest("unable to upgrade: missing upgrade headers in request");
  return {
    kind: "spdy",
    protocol,
    fields: { Connection: "Upgrade", Upgrade: SPDY, [VERSION_HEADER]: protocol },
  };
}

function webSocketUpgrade(head: RequestHead, supported: readonly string[]): Upgrade | Refused {
  const [key = ""] = head.headers.get("sec-websocket-key") ?? [];
  const [version] = head.headers.get("sec-websocket-version") ?? [];
  if (version !== WEBSOCKET_VERSION)
    return refused(400, "Bad Request", "unsupported WebSocket version", {
      "Sec-WebSocket-Version": WEBSOCKET_VERSION,
    });
  if (Buffer.from(key, "base64").length !== 16 || head.method !== "GET")
    return badRequest("malformed WebSocket handshake");
  const clients = listOf(head, "sec-websocket-protocol");
  const protocol = clients.length === 0 ? "" : clients.find((name) => supported.includes(name));
  if (protocol === undefined)
    return refused(
      403,
      "Forbidden",
      `requested protocol(s) are not supported: [${clients.join(" ")}]; supports [${supported.join(" ")}]`,
    );
  const accept = createHash("sha1").update(`${key}${WEBSOCKET_GUID}`).digest("base64");
  const named = protocol === "" ? {} : { "Sec-WebSocket-Protocol": protocol };
  return {
    kind: "webSocket",
    protocol,
    fields: { Upgrade: "websocket", Connection: "Upgrade", "Sec-WebSocket-Accept": accept, ...named },
  };
}

function badRequest(text: string): Refused {
  return refused(400, "Bad Request", text);
}

function refused(
  status: number,
  reason: string,
  text: string,
  fields: Readonly<Record<string, string>> = {},
): Refused {
  return { kind: "refused", answer: refusal(status, reason, text, fields) };
}
