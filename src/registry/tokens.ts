import { BunkerdError, quote } from "../model/errors.ts";
import type { Credentials } from "../model/remotes.ts";
import { exchange, type HttpAnswer, readBody } from "./exchange.ts";
import { shownUrl, statusLine } from "./failures.ts";
import { MAX_TOKEN_BODY_BYTES } from "./limits.ts";
import { isLoopback } from "./loopback.ts";

/* Tokens of the distribution project's two ways: OAuth2 by POST for who has credentials, else GET (containerd `core/remotes/docker/auth`). */

export interface TokenRequest {
  readonly realm: URL;
  readonly service: string;
  readonly scopes: readonly string[];
  readonly credentials?: Exclude<Credentials, { readonly header: string }> | undefined;
  readonly headers: Headers;
  readonly tls?: BunFetchRequestInitTLS | undefined;
  readonly dump?: ((text: string) => void) | undefined;
}

export interface Token {
  readonly value: string;
  /** By `performance.now()`; Infinity if the server names no end. */
  readonly expiresAtMs: number;
}

/** Answers of servers that know GET alone. */
const NO_POST: ReadonlySet<number> = new Set([400, 401, 404]);

/** @throws TransportFailure, Unknown with URL and status */
export async function fetchToken(request: TokenRequest): Promise<Token> {
  if (request.credentials === undefined) return await tokenIn(await get(request));
  const answer = await post(request, request.credentials);
  const { status } = answer.response;
  const mayGet = NO_POST.has(status) || (status === 405 && request.credentials.username !== undefined);
  if (!mayGet) return await tokenIn(answer);
  await answer.discard();
  return await tokenIn(await get(request));
}

/** @throws Unknown for a realm that must not be asked with these credentials */
export function realmOf(text: string | undefined, registry: URL, hasSecret: boolean): URL {
  if (text === undefined) throw new BunkerdError("Unknown", "no realm specified for token auth challenge");
  const realm = URL.parse(text);
  if (realm === null || !/^https?:$/.test(realm.protocol)) {
    throw new BunkerdError("Unknown", `invalid token auth challenge realm: ${quote(text)}`);
  }
  if (hasSecret && registry.protocol === "https:" && realm.protocol === "http:" && !isLoopback(realm.host)) {
    throw new BunkerdError("Unknown", `credentials are not sent in the clear to realm ${shownUrl(realm)}`);
  }
  return realm;
}

async function post(
  { realm, service, scopes, headers, tls, dump }: TokenRequest,
  { username, secret }: { readonly username?: string | undefined; readonly secret: string },
): Promise<HttpAnswer> {
  const form = new URLSearchParams();
  if (scopes.length > 0) form.set("scope", scopes.join(" "));
  form.set("service", service);
  form.set("client_id", "containerd-client");
  form.set("grant_type", username === undefined ? "refresh_token" : "password");
  if (username === undefined) form.set("refresh_token", secret);
  else {
    form.set("username", username);
    form.set("password", secret);
  }
  const bytes = Buffer.from(form.toString());
  const typed = new Headers(headers);
  typed.set("content-type", "application/x-www-form-urlencoded; charset=utf-8");
  const body = {
    sizeBytes: bytes.length,
    async *open() {
      yield bytes;
    },
  };
  // A form with a password is not repeated to where somebody redirects it.
  return await exchange({ method: "POST", url: realm, headers: typed, body, tls, dump, follows: false });
}

async function get({
  realm,
  service,
  scopes,
  credentials,
  headers,
  tls,
  dump,
}: TokenRequest): Promise<HttpAnswer> {
  const url = new URL(realm.href);
  if (service !== "") url.searchParams.append("service", service);
  for (const scope of scopes) url.searchParams.append("scope", scope);
  const all = new Headers(headers);
  if (credentials !== undefined)
    all.set("authorization", basicOf(credentials.username ?? "", credentials.secret));
  return await exchange({ method: "GET", url, headers: all, tls, dump });
}

export function basicOf(username: string, secret: string): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString("base64")}`;
}

async function tokenIn({ url, response, discard }: HttpAnswer): Promise<Token> {
  if (response.status < 200 || response.status >= 400) {
    await discard();
    const what = `unexpected status from token request to ${shownUrl(url)}: ${statusLine(response)}`;
    throw new BunkerdError("Unknown", what);
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const piece of readBody(response, undefined)) {
    size += piece.length;
    if (size > MAX_TOKEN_BODY_BYTES)
      throw new BunkerdError("Unknown", `token of ${shownUrl(url)} is too large`);
    parts.push(piece);
  }
  return parseToken(Buffer.concat(parts).toString("utf8"), url);
}

function parseToken(text: string, url: URL): Token {
  let document: Readonly<Record<string, unknown>>;
  try {
    document = Object(JSON.parse(text)) as Readonly<Record<string, unknown>>;
  } catch {
    // The parser's message would repeat what may be a token.
    throw new BunkerdError("Unknown", `unable to decode token response of ${shownUrl(url)}`);
  }
  const value = [document["access_token"], document["token"]].find(
    (item) => typeof item === "string" && /^[\x21-\x7e]+$/.test(item),
  );
  if (typeof value !== "string") {
    const what = `authorization server did not include a token in the response: ${shownUrl(url)}`;
    throw new BunkerdError("Unknown", what);
  }
  const seconds = document["expires_in"];
  const lasts = typeof seconds === "number" && seconds > 0;
  return { value, expiresAtMs: lasts ? performance.now() + seconds * 1000 : Number.POSITIVE_INFINITY };
}
