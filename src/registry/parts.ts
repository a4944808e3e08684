import { BunkerdError, fail, isError } from "../model/errors.ts";
import { isIndex, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import { readBody } from "./exchange.ts";
import { abortError, afterTrials, TransportFailure, type Trial } from "./failures.ts";
import type { RegistryHost } from "./hosts.ts";
import { MAX_CUTS_WITHOUT_PROGRESS } from "./limits.ts";
import {
  type ApiAnswer,
  type ApiRequest,
  asBunkerdError,
  failedTrial,
  trialOf,
  unexpectedStatus,
} from "./requests.ts";
import { acceptFor, hostsFor, type Repository, scopeOf } from "./resolve.ts";

/* Bytes of one blob, from whichever host has them, over connections that may be cut. */

/** Bytes `[start, end)`. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
}

/** What a fetcher remembers between the parts of its blobs. */
export interface Source {
  readonly repository: Repository;
  readonly descriptor: OciDescriptor;
  /** Where to ask for it; absent: by its media type. */
  readonly kind?: "blobs" | "manifests";
  /** The host that answered last is asked first. */
  preferred: RegistryHost | undefined;
  /** Hosts whose answers brought nothing, asked last. */
  readonly cutting?: Set<RegistryHost>;
  /** Is told of each answer that bytes are read from: `GET https://… (/etc/…/hosts.toml)`. */
  readonly onOrigin?: ((origin: string) => void) | undefined;
}

interface Opened {
  readonly answer: ApiAnswer;
  readonly host: RegistryHost;
  /** Position in the blob of the body's first byte. */
  readonly position: number;
  readonly release: () => void;
}

/** Yields a stretch; takes cut connections up where they ended. @throws NotFound, DataLoss, Unknown, Canceled */
export async function* readStretch(
  source: Source,
  stretch: Stretch,
  signal: AbortSignal | undefined,
  onOpened?: (isPart: boolean) => void,
): AsyncGenerator<Uint8Array> {
  const { digest, size } = source.descriptor;
  let { start } = stretch;
  let cuts = 0;
  while (start < stretch.end) {
    const before = start;
    const opened = await open(source, { start, end: stretch.end }, signal);
    try {
      onOpened?.(opened.answer.response.status === 206);
      for await (const piece of readFrom(opened, start, signal)) {
        if (start + piece.length > stretch.end) {
          if (stretch.end === size)
            throw fail("DataLoss", `${digest}: ${opened.answer.shown} sends more than ${size} bytes`);
          yield piece.subarray(0, stretch.end - start);
          start = stretch.end;
          break;
        }
        start += piece.length;
        yield piece;
      }
      if (start < stretch.end) throw new TransportFailure("cut", `ended ${stretch.end - start} bytes early`);
    } catch (error) {
      if (!(error instanceof TransportFailure)) throw error;
      cuts = start > before ? 0 : cuts + 1;
      const { logger } = source.repository.session;
      logger.debug("connection was cut", {
        request: opened.answer.shown,
        position: start,
        reason: error.message,
      });
      if (cuts > MAX_CUTS_WITHOUT_PROGRESS) throw cutOff(source, opened, start, error);
      if (cuts > 0) source.cutting?.add(opened.host);
    } finally {
      await opened.answer.discard();
      opened.release();
    }
  }
}

function cutOff(
  { descriptor }: Source,
  { answer, host }: Opened,
  position: number,
  cause: TransportFailure,
): BunkerdError {
  const what = `${descriptor.digest}: ${answer.shown} (${host.origin}) cut at byte ${position} of ${descriptor.size}: ${cause.message}`;
  return new BunkerdError("Unknown", `${what}: unexpected EOF`, { cause });
}

/** Skips what comes before `start`: a server may have overlooked the range. */
async function* readFrom(
  { answer, position }: Opened,
  start: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let skip = start - position;
  for await (const piece of readBody(answer.response, signal)) {
    if (skip >= piece.length) skip -= piece.length;
    else {
      yield skip === 0 ? piece : piece.subarray(skip);
      skip = 0;
    }
  }
}

/** Asks the descriptor's own URLs, then the hosts. @throws NotFound if none has it, naming each */
async function open(source: Source, stretch: Stretch, signal: AbortSignal | undefined): Promise<Opened> {
  const { repository, descriptor } = source;
  const { session, name } = repository;
  const release = await permit(repository, signal);
  const trials: Trial[] = [];
  const errors: unknown[] = [];
  try {
    const requests = requestsFor(source);
    for (const [index, request] of requests.entries()) {
      const asked = {
        ...rangeOf(request, stretch, descriptor.size),
        isLastHost: index === requests.length - 1,
        signal,
      };
      try {
        const answer = await session.request(name, asked);
        const position = await positionOf(answer, stretch, descriptor, trials, request.host);
        if (request.isTrusted !== false) source.preferred = request.host;
        source.onOrigin?.(`${answer.shown} (${request.host.origin})`);
        return { answer, host: request.host, position, release };
      } catch (error) {
        if (trials.length <= index) trials.push(failedTrial(error, session.shown(name, asked), request.host));
        errors.push(error);
      }
    }
    const first = errors.find((error) => !isError(error, "NotFound"));
    const { digest, mediaType } = descriptor;
    if (first === undefined)
      throw fail("NotFound", `could not fetch content descriptor ${digest} (${mediaType}) from remote`);
    throw asBunkerdError(first);
  } catch (error) {
    release();
    throw afterTrials(trials, error);
  }
}

async function permit({ session }: Repository, signal: AbortSignal | undefined): Promise<() => void> {
  try {
    return (await session.options.limit?.(signal)) ?? (() => undefined);
  } catch (error) {
    throw signal?.aborted ? abortError(signal) : error;
  }
}

function requestsFor(source: Source): ApiRequest[] {
  const { repository, descriptor, preferred, cutting = new Set() } = source;
  const { mediaType, digest, urls = [] } = descriptor;
  const hosts = hostsFor(repository, ["pull"], "pull");
  const rank = (host: RegistryHost): number => (cutting.has(host) ? 1 : host === preferred ? -1 : 0);
  const ordered = hosts.toSorted((a, b) => rank(a) - rank(b));
  const kind = source.kind ?? (isManifest(mediaType) || isIndex(mediaType) ? "manifests" : "blobs");
  const headers = { accept: acceptFor(mediaType, kind) };
  const scopes = [scopeOf(repository.name.repository, "pull")];
  const base = { method: "GET", headers, scopes, isLastHost: false } as const;
  const foreign = urls.flatMap((text): ApiRequest[] => {
    const url = URL.parse(text);
    if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "")
      return [];
    return [{ ...base, host: foreignHost(url), target: url, isTrusted: false }];
  });
  return [...foreign, ...ordered.map((host): ApiRequest => ({ ...base, host, target: `${kind}/${digest}` }))];
}

function foreignHost({ protocol, host }: URL): RegistryHost {
  return {
    scheme: protocol === "https:" ? "https" : "http",
    host,
    path: "",
    capabilities: new Set(["pull"]),
    headers: [],
    tls: {},
    fallsBack: false,
    origin: "url of the descriptor",
  };
}

function rangeOf(request: ApiRequest, { start, end }: Stretch, size: number): ApiRequest {
  if (start === 0 && end === size) return request;
  const range = end === size ? `bytes=${start}-` : `bytes=${start}-${end - 1}`;
  return { ...request, headers: { ...request.headers, range }, decodes: false };
}

/** Where the answer's body begins. @throws what the answer says instead of the blob */
async function positionOf(
  answer: ApiAnswer,
  stretch: Stretch,
  { digest, size }: OciDescriptor,
  trials: Trial[],
  host: RegistryHost,
): Promise<number> {
  const { status, headers } = answer.response;
  try {
    if (status === 404) throw fail("NotFound", `content at ${answer.shown.slice("GET ".length)} not found`);
    if (status > 299) throw await unexpectedStatus(answer);
    const coding = headers.get("content-encoding") ?? "identity";
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    const length = headers.get("content-length");
    if (status === 206) {
      if (range === null || Number(range[1]) !== stretch.start || coding !== "identity") {
        throw new BunkerdError(
          "Unknown",
          `unhandled content range in response: ${headers.get("content-range")}`,
        );
      }
      checkSize(range[3], size, digest);
      return stretch.start;
    }
    if (coding === "identity") checkSize(length ?? undefined, size, digest);
    else if (stretch.start > 0 || stretch.end < size) {
      throw new BunkerdError("Unknown", `${digest}: a part of a body in ${coding} cannot be read`);
    }
    return 0;
  } catch (error) {
    trials.push(
      isError(error, "DataLoss")
        ? { ...trialOf(answer, host), outcome: error.message }
        : trialOf(answer, host),
    );
    await answer.discard();
    throw error;
  }
}

function checkSize(text: string | undefined, size: number, digest: string): void {
  if (text === undefined || text === "*" || Number(text) === size) return;
  throw fail("DataLoss", `${digest}: the registry has ${text} bytes of it instead of ${size}`);
}
