import { createHash } from "node:crypto";
import { algorithmOf, digestFault } from "../model/digests.ts";
import { BunkerdError, fail, isError, quote } from "../model/errors.ts";
import { MediaType } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { FetchByDigestOptions, FetchedByDigest, Fetcher, FetchOptions } from "../model/remotes.ts";
import { afterTrials, type Trial } from "./failures.ts";
import { readStretch, type Source } from "./parts.ts";
import { readByRanges } from "./ranges.ts";
import { type ApiRequest, asBunkerdError, failedTrial, trialOf, unexpectedStatus } from "./requests.ts";
import { acceptFor, hostsFor, type Repository, scopeOf } from "./resolve.ts";

/** Below, parts are not worth their requests (containerd `fetcher.go`, minChunkSize). */
const MIN_STRETCH_BYTES = 512;

export function createFetcher(repository: Repository): Fetcher {
  return {
    fetch: (descriptor, options) => fetchDescriptor(repository, descriptor, options),
    fetchByDigest: async (digest, options) => await fetchByDigest(repository, digest, options),
  };
}

async function* fetchDescriptor(
  repository: Repository,
  descriptor: OciDescriptor,
  { offsetBytes = 0, lengthBytes, verify = true, onOrigin, signal }: FetchOptions = {},
): AsyncGenerator<Uint8Array> {
  const { digest, size } = descriptor;
  const fault = digestFault(digest);
  if (fault !== undefined) throw new BunkerdError("InvalidArgument", `${quote(digest)}: ${fault}`);
  const end = lengthBytes === undefined ? size : Math.min(offsetBytes + lengthBytes, size);
  if (offsetBytes > size) throw fail("OutOfRange", `${digest}: offset ${offsetBytes} of ${size} bytes`);
  const source: Source = { repository, descriptor, preferred: undefined, cutting: new Set(), onOrigin };
  const pieces = piecesOf(source, offsetBytes, end, signal);
  yield* verify && offsetBytes === 0 && end === size ? verified(pieces, descriptor) : pieces;
}

function piecesOf(
  source: Source,
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { maxConcurrentDownloads = 1, concurrentLayerFetchBuffer = 0 } = source.repository.session.options;
  const stretchBytes = concurrentLayerFetchBuffer;
  const parallelism = Math.min(maxConcurrentDownloads, Math.ceil((end - start) / stretchBytes));
  return stretchBytes >= MIN_STRETCH_BYTES && parallelism > 1
    ? readByRanges(source, { start, end }, { parallelism, stretchBytes, signal })
    : readStretch(source, { start, end }, signal);
}

/** Holds the last piece back until the digest is known to be right. @throws DataLoss */
async function* verified(
  pieces: AsyncIterable<Uint8Array>,
  { digest }: OciDescriptor,
): AsyncGenerator<Uint8Array> {
  const algorithm = algorithmOf(digest) ?? "sha256";
  const hash = createHash(algorithm);
  let held: Uint8Array | undefined;
  for await (const piece of pieces) {
    hash.update(piece);
    if (held !== undefined) yield held;
    held = piece;
  }
  const found = `${algorithm}:${hash.digest("hex")}`;
  if (found !== digest) throw fail("DataLoss", `unexpected digest ${found}, expected ${digest}`);
  if (held !== undefined) yield held;
}

/** Asks each host for a blob, then for a manifest. @throws NotFound, naming each */
async function fetchByDigest(
  repository: Repository,
  digest: string,
  { mediaType = "", signal }: FetchByDigestOptions = {},
): Promise<FetchedByDigest> {
  const { session, name } = repository;
  const fault = digestFault(digest);
  if (fault !== undefined) throw new BunkerdError("InvalidArgument", `${quote(digest)}: ${fault}`);
  const hosts = hostsFor(repository, ["pull"], "pull");
  const trials: Trial[] = [];
  const errors: unknown[] = [];
  for (const kind of ["blobs", "manifests"] as const) {
    for (const [index, host] of hosts.entries()) {
      const request: ApiRequest = {
        method: "HEAD",
        host,
        target: `${kind}/${digest}`,
        headers: { accept: acceptFor(mediaType, kind) },
        scopes: [scopeOf(name.repository, "pull")],
        isLastHost: index === hosts.length - 1,
        signal,
      };
      try {
        const answer = await session.request(name, request);
        trials.push(trialOf(answer, host));
        if (answer.response.status > 299) {
          throw answer.response.status === 404 ? fail("NotFound", digest) : await unexpectedStatus(answer);
        }
        await answer.discard();
        const size = Number(answer.response.headers.get("content-length") ?? Number.NaN);
        if (!(size >= 0)) throw new BunkerdError("Unknown", `${answer.shown}: answered without a size`);
        return byDigest(
          repository,
          { mediaType: mediaType || MediaType.unknown, digest, size },
          kind,
          signal,
        );
      } catch (error) {
        if (trials.length === errors.length)
          trials.push(failedTrial(error, session.shown(name, request), host));
        errors.push(error);
      }
    }
  }
  const first = errors.find((error) => !isError(error, "NotFound"));
  throw afterTrials(
    trials,
    first === undefined
      ? fail("NotFound", `could not fetch content ${digest} from remote`)
      : asBunkerdError(first),
  );
}

function byDigest(
  repository: Repository,
  descriptor: OciDescriptor,
  kind: "blobs" | "manifests",
  signal: AbortSignal | undefined,
): FetchedByDigest {
  const source: Source = { repository, descriptor, kind, preferred: undefined };
  return { descriptor, body: verified(piecesOf(source, 0, descriptor.size, signal), descriptor) };
}
