import { digestFault } from "../model/digests.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import { isIndex, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { BlobSource, Pusher, PushOptions, PushOutcome } from "../model/remotes.ts";
import { AuthorizationFailure } from "./authorizer.ts";
import { afterTrials, shownUrl, TransportFailure, type Trial } from "./failures.ts";
import type { RegistryHost } from "./hosts.ts";
import { MAX_UPLOADS } from "./limits.ts";
import { mountCandidate } from "./mount-candidates.ts";
import {
  type ApiAnswer,
  type ApiRequest,
  asBunkerdError,
  failedTrial,
  trialOf,
  unexpectedStatus,
} from "./requests.ts";
import { denied, hostsFor, type Repository, refusal, scopeOf } from "./resolve.ts";
import { putInChunks } from "./uploads.ts";

/* containerd `core/remotes/docker/pusher.go`; the first host that may be pushed to gets it. */

/** One blob or manifest on its way. */
interface Push {
  readonly repository: Repository;
  readonly host: RegistryHost;
  readonly descriptor: OciDescriptor;
  readonly source: BlobSource;
  readonly options: PushOptions;
}

export function createPusher(repository: Repository): Pusher {
  const hosts = hostsFor(repository, ["push"], "push");
  return {
    push: async (descriptor, source, options = {}) => {
      const fault = digestFault(descriptor.digest);
      if (fault !== undefined)
        throw new BunkerdError("InvalidArgument", `${quote(descriptor.digest)}: ${fault}`);
      if (descriptor.mediaType === "") {
        throw fail("InvalidArgument", `descriptor media type of ${descriptor.digest} must not be empty`);
      }
      const [host] = hosts;
      if (host === undefined) throw fail("NotFound", "no push hosts");
      return await push({ repository, host, descriptor, source, options });
    },
  };
}

async function push(work: Push): Promise<PushOutcome> {
  const { mediaType } = work.descriptor;
  const trials: Trial[] = [];
  try {
    const isDocument = isManifest(mediaType) || isIndex(mediaType);
    const target = isDocument ? manifestTarget(work) : `blobs/${work.descriptor.digest}`;
    if (await exists(work, target, trials)) return { kind: "exists" };
    if (!isDocument) return await pushBlob(work, trials);
    const request = requestOf(work, "PUT", target, { "content-type": mediaType });
    await finish(work, await ask(work, { ...request, body: bodyOf(work) }, trials));
    return { kind: "pushed" };
  } catch (error) {
    throw afterTrials(trials, asBunkerdError(error));
  }
}

/** Under the tag, if the reference has one that is this manifest's. */
function manifestTarget({ repository, descriptor }: Push): string {
  const { tag, digest } = repository.name;
  return `manifests/${tag !== "" && (digest === "" || digest === descriptor.digest) ? tag : descriptor.digest}`;
}

function requestOf(
  { repository, host, options }: Push,
  method: ApiRequest["method"],
  target: ApiRequest["target"],
  headers: Readonly<Record<string, string>> = {},
): ApiRequest {
  const scopes = [scopeOf(repository.name.repository, "pull,push")];
  return { method, host, target, headers, scopes, isLastHost: true, signal: options.signal };
}

/** Asks; a host that does not answer is named in what is thrown. */
async function ask({ repository, host }: Push, request: ApiRequest, trials: Trial[]): Promise<ApiAnswer> {
  const { session, name } = repository;
  try {
    const answer = await session.request(name, request);
    if (answer.response.status > 299) trials.push(trialOf(answer, host));
    return answer;
  } catch (error) {
    trials.push(failedTrial(error, session.shown(name, request), host));
    throw denied(error, "push access denied");
  }
}

async function exists(work: Push, target: string, trials: Trial[]): Promise<boolean> {
  const { mediaType, digest } = work.descriptor;
  const request = requestOf(work, "HEAD", target, { accept: `${mediaType}, */*` });
  let answer: ApiAnswer;
  try {
    answer = await work.repository.session.request(work.repository.name, request);
  } catch (error) {
    const { session, name } = work.repository;
    // Who may not look may still be let write; if not, the write says so.
    if (error instanceof AuthorizationFailure) {
      session.logger.debug("unable to check existence, continuing with push", { error });
      return false;
    }
    trials.push(failedTrial(error, session.shown(name, request), work.host));
    throw error;
  }
  const { status, headers } = answer.response;
  if (status === 200) {
    await answer.discard();
    const isTag = !target.endsWith(digest);
    return !isTag || headers.get("docker-content-digest") === digest;
  }
  if (status !== 404) {
    trials.push(trialOf(answer, work.host));
    throw await refusal(work.repository, request, answer);
  }
  await answer.discard();
  return false;
}

function bodyOf({ descriptor, source, options }: Push): NonNullable<ApiRequest["body"]> {
  return {
    sizeBytes: descriptor.size,
    async *open() {
      let sent = 0;
      for await (const piece of source()) {
        yield piece;
        sent += piece.length;
        options.onProgress?.(sent);
      }
    },
  };
}

async function pushBlob(work: Push, trials: Trial[]): Promise<PushOutcome> {
  for (let upload = 1; ; upload++) {
    const begun = await begin(work, trials);
    if ("kind" in begun) return begun;
    try {
      const put = await putBlob(work, begun);
      const { status } = put.response;
      if (status > 299) trials.push(trialOf(put, work.host));
      if (status === 413) {
        await put.discard();
        await pushInChunks(work, trials);
        return { kind: "pushed" };
      }
      if (status < 500 || upload === MAX_UPLOADS) {
        await finish(work, put);
        return { kind: "pushed" };
      }
      await put.discard();
    } catch (error) {
      if (!(error instanceof TransportFailure) || upload === MAX_UPLOADS) {
        const { origin } = work.host;
        if (error instanceof TransportFailure)
          trials.push(failedTrial(error, `PUT ${shownUrl(begun.location)}`, { origin }));
        throw denied(error, "push access denied");
      }
    }
    // What a broken upload has left at the registry cannot be relied on.
    work.repository.session.logger.info("upload broke off, beginning anew", {
      digest: work.descriptor.digest,
    });
  }
}

async function putBlob(work: Push, { location, isTrusted }: Upload): Promise<ApiAnswer> {
  const { session, name } = work.repository;
  const target = new URL(location.href);
  target.searchParams.append("digest", work.descriptor.digest);
  const request = requestOf(work, "PUT", target, { "content-type": "application/octet-stream" });
  return await session.request(name, { ...request, isTrusted, isRepeatable: false, body: bodyOf(work) });
}

/** For registries behind something that refuses long bodies. */
async function pushInChunks(work: Push, trials: Trial[]): Promise<void> {
  const begun = await begin(work, trials);
  if ("kind" in begun) return;
  const { repository, descriptor } = work;
  const send = async (
    request: Partial<ApiRequest> & Pick<ApiRequest, "method" | "target">,
  ): Promise<ApiAnswer> =>
    await ask(
      work,
      {
        ...requestOf(work, request.method, request.target),
        isTrusted: begun.isTrusted,
        isRepeatable: false,
        ...request,
      },
      trials,
    );
  repository.session.logger.info("the registry refuses the blob as a whole, pushing it by pieces", {
    digest: descriptor.digest,
  });
  await finish(work, await putInChunks(bodyOf(work), descriptor, begun.location, send));
}

interface Upload {
  readonly location: URL;
  /** False if it is another host, which does not get what is known of us. */
  readonly isTrusted: boolean;
}

/** Opens an upload, or has the blob mounted from a repository that has it. */
async function begin(work: Push, trials: Trial[]): Promise<Upload | PushOutcome> {
  const { repository, descriptor } = work;
  const request = requestOf(work, "POST", "blobs/uploads/");
  const from = mountCandidate(repository.name, descriptor.annotations ?? {});
  const mounted = from === undefined ? undefined : await mount(work, request, from);
  if (mounted !== undefined && mounted.response.status > 299) trials.push(trialOf(mounted, work.host));
  const answer = mounted ?? (await ask(work, request, trials));
  const { status } = answer.response;
  if (status === 201) {
    await answer.discard();
    return from === undefined
      ? { kind: "exists" }
      : { kind: "mounted", from: `${repository.name.host}/${from}` };
  }
  if (status !== 200 && status !== 202 && status !== 204) throw await unexpectedStatus(answer);
  await answer.discard();
  return uploadOf(answer);
}

/** Undefined if the registry does not let us read there or does not mount: then it is pushed without. */
async function mount(
  { repository, descriptor }: Push,
  request: ApiRequest,
  from: string,
): Promise<ApiAnswer | undefined> {
  const { session, name } = repository;
  try {
    const answer = await session.request(name, {
      ...request,
      query: { mount: descriptor.digest, from },
      scopes: [...request.scopes, scopeOf(from, "pull")],
    });
    const { status } = answer.response;
    if (status < 400 || status > 499 || status === 429) return answer;
    session.logger.debug("failed to mount from repository", { from, status });
    await answer.discard();
    return undefined;
  } catch (error) {
    if (!(error instanceof AuthorizationFailure)) throw error;
    session.logger.debug("failed to mount from repository, not authorized", { from });
    return undefined;
  }
}

/** Where to send it: a path, or a whole URL, perhaps of another host. */
function uploadOf(answer: ApiAnswer): Upload {
  const location = answer.response.headers.get("location") ?? "";
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(location);
  const base = answer.url.href;
  const url =
    location.startsWith("/") || hasScheme
      ? URL.parse(location, base)
      : URL.parse(`${answer.url.protocol}//${location}`);
  if (location === "" || url === null || !/^https?:$/.test(url.protocol)) {
    throw new BunkerdError("Unknown", `${answer.shown}: unable to parse location of the upload`);
  }
  return { location: url, isTrusted: url.origin === answer.url.origin };
}

/** @throws what the registry says of it */
async function finish({ descriptor, repository }: Push, answer: ApiAnswer): Promise<void> {
  const { status, headers } = answer.response;
  if (![200, 201, 202, 204].includes(status)) throw await unexpectedStatus(answer);
  await answer.discard();
  const digest = headers.get("docker-content-digest");
  if (digest === null)
    repository.session.logger.debug("registry did not send a Docker-Content-Digest header");
  else if (digest !== descriptor.digest) {
    throw new BunkerdError(
      "Unknown",
      `${answer.shown}: got digest ${quote(digest)}, expected ${descriptor.digest}`,
    );
  }
}
