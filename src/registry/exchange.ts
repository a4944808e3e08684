import { startTimer } from "../lib/timer.ts";
import { BunkerdError } from "../model/errors.ts";
import type { BlobSource } from "../model/remotes.ts";
import { abortError, shownUrl, statusLine, TransportFailure, transportFailure } from "./failures.ts";
import { HEADER_TIMEOUT_MS, MAX_REDIRECTS, STALL_TIMEOUT_MS, UPLOAD_ANSWER_TIMEOUT_MS } from "./limits.ts";
import { isLoopback } from "./loopback.ts";

/* One request and its answer by Bun's fetch: redirects, deadlines, what it shows of itself. Knows neither registries nor tokens. */

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body?: RequestBody | undefined;
  readonly tls?: BunFetchRequestInitTLS | undefined;
  /** What a coded body is decoded from; false for parts, which cannot be. */
  readonly decodes?: boolean;
  /** Whether redirects are followed. Default true. */
  readonly follows?: boolean;
  /** `Authorization` for another host that the request is sent on to. */
  readonly authorizeElsewhere?: ((url: URL) => Promise<string | undefined>) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly dump?: ((text: string) => void) | undefined;
}

export interface RequestBody {
  readonly sizeBytes: number;
  readonly open: BlobSource;
}

/** An answer and where it came from in the end. */
export interface HttpAnswer {
  readonly url: URL;
  readonly response: Response;
  /** To be called when the body has been read, or is not wanted: frees the connection. */
  readonly discard: () => Promise<void>;
}

/** Of the headers, these go with a redirect to another host. */
const PUBLIC_HEADERS = ["accept", "accept-encoding", "range", "user-agent", "content-type"];

/**
 * Sends a request and follows where it is sent to. Other hosts than the first get no header but {@link PUBLIC_HEADERS}.
 * @throws TransportFailure, BunkerdError on a wrong redirect or by the signal
 */
export async function exchange(request: HttpRequest): Promise<HttpAnswer> {
  let { url, headers, method } = request;
  for (let redirects = 0; ; redirects++) {
    const hop = { ...request, url, headers, method };
    const { response, discard } = await (redirects === 0 ? send(hop) : sendOn(hop));
    const location = response.headers.get("location");
    const isFinal = request.follows === false || location === null || !isRedirect(response.status, method);
    if (isFinal) return { url, response, discard };
    await discard();
    if (redirects === MAX_REDIRECTS) throw redirectFailure(url, `stopped after ${MAX_REDIRECTS} redirects`);
    const next = URL.parse(location, url.href);
    if (next === null || (next.protocol !== "http:" && next.protocol !== "https:")) {
      throw redirectFailure(url, "redirected to what is no http(s) URL");
    }
    if (!isHome(next, request.url)) {
      headers = publicOnly(headers);
      const authorization = await request.authorizeElsewhere?.(next);
      if (authorization !== undefined) headers.set("authorization", authorization);
    }
    url = next;
  }
}

/** As {@link send}: what fails is not the host that was asked, and plain http there cures nothing. */
async function sendOn(request: HttpRequest): ReturnType<typeof send> {
  try {
    return await send(request);
  } catch (error) {
    if (!(error instanceof TransportFailure)) throw error;
    const kind = error.kind === "refused" || error.kind === "no-tls" ? "other" : error.kind;
    const message = `redirected to ${shownUrl(request.url)}: ${error.message}`;
    throw new TransportFailure(kind, message, { cause: error.cause });
  }
}

/** Whether `url` is the host's that was asked at `asked`, which may send us on from plain http to TLS. */
export function isHome(url: URL, asked: URL): boolean {
  const isUpgrade = asked.protocol === "http:" && url.protocol === "https:";
  return url.origin === asked.origin || (isUpgrade && url.host === asked.host);
}

/** What has a body goes where it is sent only by the codes that say to repeat it as it is. */
function isRedirect(status: number, method: string): boolean {
  if (status === 307 || status === 308) return true;
  return (status === 301 || status === 302 || status === 303) && (method === "GET" || method === "HEAD");
}

function redirectFailure(url: URL, reason: string): BunkerdError {
  return new BunkerdError("Unknown", `${shownUrl(url)}: ${reason}`);
}

function publicOnly(headers: Headers): Headers {
  const kept = new Headers();
  for (const name of PUBLIC_HEADERS) {
    const value = headers.get(name);
    if (value !== null) kept.set(name, value);
  }
  return kept;
}

async function send(request: HttpRequest): Promise<Omit<HttpAnswer, "url">> {
  const { method, url, headers, body, tls, signal, dump, decodes = true } = request;
  if (signal?.aborted) throw abortError(signal);
  dump?.(dumpHead(`${method} ${shownUrl(url)}`, headers));
  const deadline = new Deadline(HEADER_TIMEOUT_MS, signal);
  try {
    const sent = body === undefined ? undefined : bodyStream(body, deadline);
    const response = await fetch(url, {
      method,
      headers: body === undefined ? headers : withLength(headers, body.sizeBytes),
      redirect: "manual",
      signal: deadline.signal,
      // Bun's own idle timeout would end bodies that wait for a slow disk.
      ...({ timeout: false, decompress: decodes } as RequestInit),
      // Loopback hosts are never behind a proxy (Go `httpproxy`); for others Bun follows the environment.
      ...(isLoopback(url.host) ? { proxy: false } : {}),
      ...(tls === undefined ? {} : { tls }),
      ...(sent === undefined ? {} : { body: sent }),
    });
    deadline.stop();
    dump?.(dumpHead(statusLine(response), response.headers));
    return { response, discard: () => discard(response) };
  } catch (error) {
    deadline.stop();
    if (signal?.aborted) throw abortError(signal);
    if (deadline.isOver) throw new TransportFailure("timeout", "timeout awaiting response headers");
    if (error instanceof BunkerdError) throw error;
    throw transportFailure(error);
  }
}

function withLength(headers: Headers, sizeBytes: number): Headers {
  const all = new Headers(headers);
  all.set("content-length", String(sizeBytes));
  return all;
}

async function discard(response: Response): Promise<void> {
  // What has failed needs no cancelling, and nobody wants it.
  if (response.body !== null && !response.body.locked) await response.body.cancel().catch(() => undefined);
}

/** Ends a request that shows no sign of life for so long; each sign begins it anew. */
class Deadline {
  readonly #controller = new AbortController();
  readonly signal: AbortSignal;
  isOver = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(timeoutMs: number, signal: AbortSignal | undefined) {
    this.signal =
      signal === undefined ? this.#controller.signal : AbortSignal.any([signal, this.#controller.signal]);
    this.extend(timeoutMs);
  }

  extend(timeoutMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = startTimer(() => {
      this.isOver = true;
      this.#controller.abort();
    }, timeoutMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

function bodyStream({ sizeBytes, open }: RequestBody, deadline: Deadline): ReadableStream<Uint8Array> {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const piece of open()) {
      sent += piece.length;
      if (sent > sizeBytes) break;
      deadline.extend(STALL_TIMEOUT_MS);
      yield piece;
      deadline.extend(STALL_TIMEOUT_MS);
    }
    if (sent !== sizeBytes) {
      const found = sent > sizeBytes ? "more" : String(sent);
      throw new BunkerdError("DataLoss", `the source has ${found} bytes instead of ${sizeBytes}: data loss`);
    }
    deadline.extend(UPLOAD_ANSWER_TIMEOUT_MS);
  }
  return pieces() as unknown as ReadableStream<Uint8Array>;
}

/** Reads a body; who stops early closes the connection. @throws TransportFailure of kind cut or timeout */
export async function* readBody(
  response: Response,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await readInTime(reader, signal);
      if (done || value === undefined) return;
      yield value;
    }
  } finally {
    // A body that has failed has told so by `read`.
    await reader.cancel().catch(() => undefined);
  }
}

interface BodyReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
}

async function readInTime(
  reader: BodyReader,
  signal: AbortSignal | undefined,
): ReturnType<BodyReader["read"]> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stop: (() => void) | undefined;
  try {
    signal?.throwIfAborted();
    const ended = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new TransportFailure("timeout", "no data for a minute")),
        STALL_TIMEOUT_MS,
      );
      stop = () => reject(signal?.reason);
      signal?.addEventListener("abort", stop, { once: true });
    });
    return await Promise.race([reader.read(), ended]);
  } catch (error) {
    if (signal?.aborted) throw abortError(signal);
    throw error instanceof TransportFailure ? error : cutBy(error);
  } finally {
    clearTimeout(timer);
    if (stop !== undefined) signal?.removeEventListener("abort", stop);
  }
}

function cutBy(error: unknown): TransportFailure {
  const { kind, message } = transportFailure(error);
  return new TransportFailure(kind === "other" ? "other" : "cut", message, { cause: error });
}

const SECRET_HEADERS = /authorization|cookie|token|secret|password|key|location/i;

function dumpHead(first: string, headers: Headers): string {
  const lines = [...headers].map(
    ([name, value]) => `${name}: ${SECRET_HEADERS.test(name) ? "REDACTED" : value}`,
  );
  return `${[first, ...lines].join("\r\n")}\r\n\r\n`;
}
