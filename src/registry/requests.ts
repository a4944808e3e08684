import { posix } from "node:path";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, isError, quote } from "../model/errors.ts";
import { Authorizer } from "./authorizer.ts";
import { dial } from "./dial.ts";
import { dockerCredentials } from "./docker-config.ts";
import { registryWords } from "./error-bodies.ts";
import { exchange, type HttpAnswer, isHome, type RequestBody } from "./exchange.ts";
import { abortError, shownUrl, statusLine, TransportFailure, type Trial } from "./failures.ts";
import { isMirror, type RegistryHost, registryHosts } from "./hosts.ts";
import { FIRST_DELAY_MS, MAX_ATTEMPTS, MAX_DELAY_MS, MAX_SERVER_ERRORS, MAX_SILENCES } from "./limits.ts";
import type { ResolverOptions } from "./resolver.ts";
import { readTls } from "./tls-files.ts";

/* Requests to a registry's API: authorization, retries, plain http where TLS was only hoped for. */

/** With one, it is not us who connects to the host. */
const PROXIES = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];

const USER_AGENT = "containerd/2.1 (bunkerd)";

export interface ApiRequest {
  readonly method: "HEAD" | "GET" | "POST" | "PUT" | "PATCH";
  readonly host: RegistryHost;
  /** Absolute, or relative to the repository: `manifests/latest`. */
  readonly target: URL | string;
  readonly query?: Readonly<Record<string, string>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: RequestBody | undefined;
  readonly scopes: readonly string[];
  /** Hosts before the last are given up at once when they fail: the next may do better. */
  readonly isLastHost: boolean;
  /** Without it the request goes as a stranger's, without any header of ours. Default true. */
  readonly isTrusted?: boolean;
  readonly decodes?: boolean;
  /** Whether the same request may be sent again after a failure; not so for parts of an upload. Default true. */
  readonly isRepeatable?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface ApiAnswer extends HttpAnswer {
  /** `HEAD https://…`, as messages show it: where it came from in the end. */
  readonly shown: string;
  /** The same of where it was asked for. */
  readonly asked: string;
  readonly isPlain: boolean;
}

/** What the resolver, fetchers and pushers of a session share. */
export class Session {
  readonly options: ResolverOptions;
  readonly logger: Logger;
  readonly #authorizer: Authorizer;
  readonly #hosts = new Map<string, readonly RegistryHost[]>();
  readonly #tls = new Map<RegistryHost, BunFetchRequestInitTLS | undefined>();
  /** Hosts with a `dial_timeout` that could be reached. */
  readonly #reached = new Set<string>();
  /** Hosts that turned out not to speak TLS. */
  readonly #plain = new Set<string>();

  constructor(options: ResolverOptions) {
    this.options = options;
    this.logger = options.logger;
    const { credentials, dockerConfigDirectory, dump } = options;
    const kept = dockerConfigDirectory ? dockerCredentials(dockerConfigDirectory) : undefined;
    this.#authorizer = new Authorizer({
      credentials: async (request) => (await credentials?.(request)) ?? (await kept?.(request)),
      userAgent: USER_AGENT,
      dump,
    });
  }

  /** @throws InvalidArgument naming a wrong file */
  hostsOf(name: string): readonly RegistryHost[] {
    const known = this.#hosts.get(name);
    if (known !== undefined) return known;
    const hosts = registryHosts(name, this.options);
    this.#hosts.set(name, hosts);
    return hosts;
  }

  /**
   * Sends a request until it is answered by something that a retry does not mend.
   * @throws TransportFailure, AuthorizationFailure, Canceled
   */
  async request(
    name: { readonly host: string; readonly repository: string },
    request: ApiRequest,
  ): Promise<ApiAnswer> {
    let { method } = request;
    let [refusals, serverErrors] = [0, 0];
    for (let attempt = 1; ; attempt++) {
      const isLastAttempt = attempt === MAX_ATTEMPTS;
      const sent = await this.#once(name, { ...request, method }, attempt);
      if (sent === undefined) {
        await pause(FIRST_DELAY_MS * 2 ** attempt, request.signal);
        continue;
      }
      const { answer, access } = sent;
      const { status, headers } = answer.response;
      if (isLastAttempt) return answer;
      if (status === 401 && request.isTrusted !== false) {
        if (refusals > 1) return answer;
        if (!(await this.#authorizer.refused(access, headers.get("www-authenticate"), refusals++)))
          return answer;
        await answer.discard();
      } else if (status === 405 && method === "HEAD" && answer.url.pathname.includes("/manifests/")) {
        await answer.discard();
        method = "GET";
      } else if (status === 408 || status === 429 || [500, 502, 503, 504].includes(status)) {
        const mayRepeat = request.isLastHost && request.isRepeatable !== false;
        if (status >= 500 && (!mayRepeat || ++serverErrors >= MAX_SERVER_ERRORS)) return answer;
        await answer.discard();
        await pause(delayOf(headers.get("retry-after"), attempt), request.signal);
      } else return answer;
    }
  }

  /** Connections that idle are Bun's, and end by themselves. Who we are is forgotten. */
  close(): void {
    this.#authorizer.forget();
  }

  /** `HEAD https://…`, as messages show it. */
  shown(name: { readonly host: string; readonly repository: string }, request: ApiRequest): string {
    return `${request.method} ${shownUrl(this.#urlOf(name, request))}`;
  }

  /** One request; undefined if no answer came and another try may get one. */
  async #once(
    name: { readonly host: string; readonly repository: string },
    request: ApiRequest,
    attempt: number,
  ): Promise<{ answer: ApiAnswer; access: Parameters<Authorizer["refused"]>[0] } | undefined> {
    const { method, host, scopes, isTrusted = true, body, decodes = true, signal, isLastHost } = request;
    const url = this.#urlOf(name, request);
    const tls = isTrusted ? this.#tlsOf(host) : undefined;
    const access = { host, url, tls, scopes };
    const sent = isTrusted ? await withSignal(this.#authorizer.authorize(access), signal) : undefined;
    const headers = this.#headersOf(request, sent);
    const { dump } = this.options;
    const shown = `${method} ${shownUrl(url)}`;
    this.logger.debug("do request", { request: shown, host: host.host });
    try {
      if (isTrusted) await this.#reach(host, signal);
      const elsewhere = { host, tls, scopes: [], isElsewhere: true };
      const authorizeElsewhere = isTrusted
        ? (next: URL) => withSignal(this.#authorizer.authorize({ ...elsewhere, url: next }), signal)
        : undefined;
      const answer = await exchange({
        ...{ method, url, headers, body, tls, decodes, signal, dump },
        authorizeElsewhere,
      });
      this.logger.debug("fetch response received", { request: shown, status: answer.response.status });
      const isPlain = url.protocol === "http:";
      return {
        answer: { ...answer, shown: `${method} ${shownUrl(answer.url)}`, asked: shown, isPlain },
        access: isHome(answer.url, url) ? { ...access, sent } : { ...elsewhere, url: answer.url },
      };
    } catch (error) {
      if (!(error instanceof TransportFailure)) throw error;
      if (this.#fallBack(host, url, error)) return await this.#once(name, request, attempt);
      // Who was silent for half a minute is not waited for five times.
      const attempts = { cut: MAX_ATTEMPTS, timeout: MAX_SILENCES, refused: 1, "no-tls": 1, other: 1 }[
        error.kind
      ];
      const mayRepeat = isLastHost && request.isRepeatable !== false;
      if (mayRepeat && attempt < attempts) return undefined;
      throw new TransportFailure(
        error.kind,
        `failed to do request: ${goMethod(method)} "${shownUrl(url)}": ${error.message}`,
        {
          cause: error,
        },
      );
    }
  }

  #urlOf(name: { readonly host: string; readonly repository: string }, request: ApiRequest): URL {
    const { host, target, query = {}, isTrusted = true } = request;
    const isPlain = this.#plain.has(host.host);
    const scheme = isPlain ? "http" : host.scheme;
    const url =
      typeof target === "string"
        ? new URL(`${scheme}://${host.host}${posix.join("/", host.path, name.repository, target)}`)
        : new URL(target.href);
    if (typeof target !== "string" && isPlain && url.host === host.host) url.protocol = "http:";
    for (const [key, value] of Object.entries(query)) url.searchParams.append(key, value);
    if (isTrusted && isMirror(host, name.host)) url.searchParams.append("ns", name.host);
    return url;
  }

  #headersOf({ host, headers, isTrusted = true }: ApiRequest, authorization: string | undefined): Headers {
    const all = new Headers();
    if (isTrusted) {
      for (const [name, value] of Object.entries(this.options.headers ?? {})) {
        for (const item of typeof value === "string" ? [value] : value) append(all, name, item);
      }
      for (const [name, value] of host.headers) all.append(name, value);
    }
    if (!all.has("user-agent")) all.set("user-agent", USER_AGENT);
    all.set("accept-encoding", "identity");
    for (const [name, value] of Object.entries(headers ?? {})) all.set(name, value);
    if (authorization !== undefined) all.set("authorization", authorization);
    return all;
  }

  async #reach(host: RegistryHost, signal: AbortSignal | undefined): Promise<void> {
    const isProxied = PROXIES.some((name) => (process.env[name] ?? "") !== "");
    if (host.dialTimeoutMs === undefined || isProxied || this.#reached.has(host.host)) return;
    await dial(host, host.dialTimeoutMs, signal);
    this.#reached.add(host.host);
  }

  #tlsOf(host: RegistryHost): BunFetchRequestInitTLS | undefined {
    if (!this.#tls.has(host)) this.#tls.set(host, readTls(host.tls));
    return this.#tls.get(host);
  }

  #fallBack(host: RegistryHost, url: URL, { kind }: TransportFailure): boolean {
    const isClosed = kind === "refused" && !/:\d+$/.test(host.host);
    if (!host.fallsBack || url.protocol !== "https:" || (kind !== "no-tls" && !isClosed)) return false;
    this.#plain.add(host.host);
    return true;
  }
}

/** @throws InvalidArgument on what is no header, without its value, which may be a secret */
function append(headers: Headers, name: string, value: string): void {
  try {
    headers.append(name, value);
  } catch {
    throw new BunkerdError("InvalidArgument", `header ${quote(name)} of the client's: no header of HTTP`);
  }
}

/** As Go's client names a method in its errors. */
function goMethod(method: string): string {
  return `${method.slice(0, 1)}${method.slice(1).toLowerCase()}`;
}

/** Somebody else may wait for the same token: it is not ended, only no longer waited for. */
async function withSignal<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  if (signal.aborted) throw abortError(signal);
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(abortError(signal));
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (stop !== undefined) signal.removeEventListener("abort", stop);
  }
}

async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  // Spread, so that many clients do not come back as one.
  const timer = Promise.withResolvers<void>();
  const handle = setTimeout(timer.resolve, Math.min(delayMs, MAX_DELAY_MS) * (0.75 + Math.random() / 2));
  try {
    await withSignal(timer.promise, signal);
  } finally {
    clearTimeout(handle);
  }
}

function delayOf(retryAfter: string | null, attempt: number): number {
  const delayMs = retryAfter === null ? Number.NaN : retryAfterMs(retryAfter.trim());
  return delayMs >= 0 ? delayMs : FIRST_DELAY_MS * 2 ** attempt;
}

/** Seconds, or a date (RFC 9110 §10.2.3) that may have passed; NaN for neither. */
function retryAfterMs(text: string): number {
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  return Math.max(Date.parse(text) - Date.now(), 0);
}

/** `unexpected status from HEAD request to …: 500 Internal Server Error: unknown: …`; reads the body's beginning. */
export async function unexpectedStatus({ shown, response, discard }: ApiAnswer): Promise<BunkerdError> {
  const words = await registryWords(response);
  await discard();
  const [method = "", url = ""] = shown.split(" ");
  const what = `unexpected status from ${method} request to ${url}: ${statusLine(response)}`;
  return new BunkerdError("Unknown", words === "" ? what : `${what}: ${words}`);
}

export function trialOf({ shown, asked, url, response }: ApiAnswer, { origin }: RegistryHost): Trial {
  const request = shown === asked ? shown : `${asked} redirected to ${shownUrl(url)}`;
  return { request, outcome: statusLine(response), origin };
}

/** The trial that a host failed without an answer. What is no fault of the host is thrown. */
export function failedTrial(error: unknown, shown: string, { origin }: Pick<RegistryHost, "origin">): Trial {
  if (error instanceof TransportFailure) {
    const { message } = error.cause instanceof TransportFailure ? error.cause : error;
    return { request: shown, outcome: message, origin };
  }
  if (isError(error, "Unknown") || isError(error, "NotFound") || isError(error, "DataLoss")) {
    return { request: shown, outcome: error.message, origin };
  }
  throw error;
}

/** What a caller is thrown. */
export function asBunkerdError(error: unknown): unknown {
  return error instanceof TransportFailure
    ? new BunkerdError("Unknown", error.message, { cause: error })
    : error;
}
