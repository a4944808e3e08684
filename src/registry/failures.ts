import { BunkerdError, messageOf, unquoted } from "../model/errors.ts";

/*
 * What went wrong, in containerd's words (`core/remotes/docker`, `core/remotes/errors`), without a secret: of URLs only `ns=` keeps its value.
 */

/** No answer came. */
export class TransportFailure extends Error {
  override readonly name = "TransportFailure";
  /** The server does not speak TLS, or nobody listens: what plain http may cure. */
  readonly kind: "refused" | "no-tls" | "cut" | "timeout" | "other";

  constructor(kind: TransportFailure["kind"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

const WORDS: Readonly<Record<string, readonly [TransportFailure["kind"], string]>> = {
  ECONNREFUSED: ["refused", "connection refused"],
  ECONNRESET: ["cut", "connection closed unexpectedly"],
  EPIPE: ["cut", "connection closed unexpectedly"],
  ConnectionClosed: ["cut", "connection closed unexpectedly"],
  ETIMEDOUT: ["timeout", "connection timed out"],
  ConnectionTimeout: ["timeout", "connection timed out"],
  EPROTO: ["no-tls", "TLS handshake failed"],
  ENOTFOUND: ["other", "no such host"],
  InvalidHTTPResponse: ["other", "malformed HTTP response"],
  Malformed_HTTP_Response: ["other", "malformed HTTP response"],
  InvalidContentLength: ["other", "malformed HTTP response: invalid content length"],
  ERR_TLS_CERT_ALTNAME_INVALID: [
    "other",
    "tls: failed to verify certificate: it is not the certificate of this host",
  ],
  UnsupportedProxyProtocol: ["other", "the environment names a proxy that is none of http(s)"],
  UnrequestedUpgrade: ["other", "malformed HTTP response: nobody asked for another protocol"],
  ResponseHeadersTooLarge: ["other", "response headers exceed the limit"],
  FailedToOpenSocket: ["other", "cannot open a connection (certificates or keys that cannot be used?)"],
};

/** Of what `fetch` threw, its code alone: its message repeats the URL, query and all. */
export function transportFailure(error: unknown): TransportFailure {
  if (error instanceof TransportFailure) return error;
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== "string") return new TransportFailure("other", "failed", { cause: error });
  const [kind, words] = WORDS[code] ?? ["other", wordsOf(code, messageOf(error))];
  return new TransportFailure(kind, words, { cause: error });
}

/** OpenSSL's own words for certificates hold no URL, nor do those of a proxy that opens no tunnel; Bun's do. */
function wordsOf(code: string, message: string): string {
  if (message.includes("://")) return code;
  if (code === "ERR_PROXY_TUNNEL") return unquoted(message.slice(0, 128));
  return /CERT|SIGNATURE|ISSUER/.test(code) ? `tls: failed to verify certificate: ${message}` : code;
}

/** @throws nothing; what a signal's reason is to callers: their own error, else Canceled */
export function abortError(signal: AbortSignal): unknown {
  const { reason } = signal;
  if (reason instanceof BunkerdError) return reason;
  const isTimeout = reason instanceof Error && reason.name === "TimeoutError";
  return isTimeout
    ? new BunkerdError("DeadlineExceeded", "context deadline exceeded", { cause: reason })
    : new BunkerdError("Canceled", "context canceled", { cause: reason });
}

/** A URL as messages show it. */
export function shownUrl(url: URL): string {
  const shown = new URL(url);
  shown.username = "";
  shown.password = "";
  shown.hash = "";
  for (const [key, value] of [...shown.searchParams]) {
    if (key !== "ns" && value !== "") shown.searchParams.set(key, "REDACTED");
  }
  return unquoted(shown.href);
}

/** `404 Not Found` */
export function statusLine({
  status,
  statusText,
}: {
  readonly status: number;
  readonly statusText: string;
}): string {
  return unquoted(`${status} ${statusText}`.trim().slice(0, 128));
}

/** What one host had to say. */
export interface Trial {
  /** `HEAD https://…` */
  readonly request: string;
  readonly outcome: string;
  readonly origin: string;
}

/** Says before a failure who was asked: `HEAD https://a/v2/…: 404 Not Found (/etc/…/hosts.toml); …: the failure`. */
export function afterTrials(trials: readonly Trial[], error: unknown): unknown {
  if (!(error instanceof BunkerdError) || trials.length === 0) return error;
  const lines = [
    ...new Set(trials.map(({ request, outcome, origin }) => `${request}: ${outcome} (${origin})`)),
  ];
  return new BunkerdError(error.code, `tried ${lines.join("; ")}: ${error.message}`, { cause: error });
}

/** The text of a failure on the way to a URL, which a {@link TransportFailure} does not name. */
export function messageOfFailure(error: unknown, url: URL): string {
  return error instanceof TransportFailure ? `${shownUrl(url)}: ${error.message}` : messageOf(error);
}
