import { createHash } from "node:crypto";
import { digestFault } from "../model/digests.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import { MediaType } from "../model/media-types.ts";
import type { Reference } from "../model/references.ts";
import type { Resolved } from "../model/remotes.ts";
import { AuthorizationFailure } from "./authorizer.ts";
import { readBody } from "./exchange.ts";
import { afterTrials, type Trial } from "./failures.ts";
import type { Capability, RegistryHost } from "./hosts.ts";
import { MAX_MANIFEST_BYTES } from "./limits.ts";
import {
  type ApiAnswer,
  type ApiRequest,
  asBunkerdError,
  failedTrial,
  type Session,
  trialOf,
  unexpectedStatus,
} from "./requests.ts";

/** What a reference's requests go to. */
export interface Repository {
  readonly session: Session;
  readonly name: Reference;
  readonly reference: string;
  readonly hosts: readonly RegistryHost[];
}

/** Registries show a manifest to those alone who say that they can read it. */
const ACCEPT = [
  MediaType.dockerManifest,
  MediaType.dockerIndex,
  MediaType.ociManifest,
  MediaType.ociIndex,
  "*/*",
].join(", ");

/** `Accept` for who knows what it is, or does not. */
export function acceptFor(mediaType: string, kind: "blobs" | "manifests"): string {
  if (mediaType !== "" && mediaType !== MediaType.unknown) return `${mediaType}, */*`;
  return kind === "manifests" ? ACCEPT : "*/*";
}

/** @throws NotFound if no host may do it */
export function hostsFor(
  { hosts }: Repository,
  capabilities: readonly Capability[],
  what: string,
): RegistryHost[] {
  const able = hosts.filter((host) => capabilities.every((capability) => host.capabilities.has(capability)));
  if (able.length > 0) return able;
  const origins = [...new Set(hosts.map(({ origin }) => origin))].join(", ");
  throw fail("NotFound", `no ${what} hosts (${origins})`);
}

export function scopeOf(repository: string, actions: "pull" | "pull,push"): string {
  return `repository:${repository}:${actions}`;
}

/** The error of the host that came furthest: no answer, not found, another status, a manifest that is refused. */
interface Worst {
  readonly rank: 0 | 1 | 2 | 3 | 4;
  readonly error?: unknown;
}

/** containerd `core/remotes/docker/resolver.go`, Resolve. @throws as {@link Resolver} says, naming each host that was tried */
export async function resolve(repository: Repository, signal: AbortSignal | undefined): Promise<Resolved> {
  const { name, reference } = repository;
  if (name.object === "") throw new BunkerdError("InvalidArgument", `object required: ${quote(reference)}`);
  const fault = name.digest === "" ? undefined : digestFault(name.digest);
  if (fault !== undefined) throw new BunkerdError("InvalidArgument", `${quote(reference)}: ${fault}`);
  const hosts = hostsFor(repository, name.digest === "" ? ["pull", "resolve"] : ["pull"], "resolve");
  const targets =
    name.digest === "" ? [`manifests/${name.object}`] : [`manifests/${name.digest}`, `blobs/${name.digest}`];
  const trials: Trial[] = [];
  let worst: Worst = { rank: 0, error: fail("NotFound", reference) };
  try {
    for (const target of targets) {
      // Blobs are looked among only if manifests were there to be asked and had none.
      if (worst.rank > 2) break;
      for (const [index, host] of hosts.entries()) {
        const isLastHost = index === hosts.length - 1;
        const answer = await ask(repository, { host, target, isLastHost, signal });
        if ("descriptor" in answer) return { name: reference, descriptor: answer.descriptor };
        trials.push(answer.trial);
        if (answer.rank > worst.rank) worst = answer;
        const next = isLastHost ? "fetch failed" : "trying next host";
        repository.session.logger.info(next, { host: host.host, outcome: answer.trial.outcome });
      }
    }
  } catch (error) {
    throw afterTrials(trials, asBunkerdError(error));
  }
  throw afterTrials(trials, asBunkerdError(worst.error));
}

interface Question {
  readonly host: RegistryHost;
  readonly target: string;
  readonly isLastHost: boolean;
  readonly signal: AbortSignal | undefined;
}

type HostAnswer = Pick<Resolved, "descriptor"> | (Worst & { readonly trial: Trial });

async function ask(repository: Repository, question: Question): Promise<HostAnswer> {
  const { session, name, reference } = repository;
  const { host } = question;
  const request: ApiRequest = {
    ...question,
    method: "HEAD",
    headers: { accept: ACCEPT },
    scopes: [scopeOf(name.repository, "pull")],
  };
  try {
    const answer = await session.request(name, request);
    const { status } = answer.response;
    const trial = trialOf(answer, host);
    if (status === 404) {
      await answer.discard();
      return { rank: 2, error: fail("NotFound", reference), trial };
    }
    if (status > 299) return { rank: 3, error: await refusal(repository, request, answer), trial };
    return await describe(repository, request, answer, trial);
  } catch (error) {
    const trial = failedTrial(error, session.shown(name, request), host);
    return { rank: 1, error: denied(error, "pull access denied"), trial };
  }
}

/** What a user reads who may not. */
export function denied(error: unknown, what: string): unknown {
  if (!(error instanceof AuthorizationFailure)) return error;
  const message = `${what}, repository does not exist or may require authorization: ${error.message}`;
  return new BunkerdError("Unknown", message, { cause: error });
}

/** A HEAD has no body to say why: a GET does, where it is refused likewise. */
export async function refusal(
  { session, name }: Repository,
  request: ApiRequest,
  answer: ApiAnswer,
): Promise<BunkerdError> {
  if (answer.response.status !== 403 || request.method !== "HEAD") return await unexpectedStatus(answer);
  await answer.discard();
  try {
    const again = await session.request(name, { ...request, method: "GET", isLastHost: false });
    if (again.response.status === 403) return await unexpectedStatus({ ...again, shown: answer.shown });
    await again.discard();
  } catch (error) {
    session.logger.debug("failed to retrieve error body with GET fallback", { error: asBunkerdError(error) });
  }
  return await unexpectedStatus(answer);
}

/** Trusts the headers of a registry that may resolve; without them, reads the manifest. */
async function describe(
  repository: Repository,
  request: ApiRequest,
  head: ApiAnswer,
  trial: Trial,
): Promise<HostAnswer> {
  const { name, reference } = repository;
  await head.discard();
  const headers = head.response.headers;
  // Of a coded body it is not the manifest's length.
  const isCoded = (headers.get("content-encoding") ?? "identity") !== "identity";
  const length = isCoded ? null : headers.get("content-length");
  let [size, digest, mediaType] = [length === null ? -1 : Number(length), name.digest, mediaTypeOf(headers)];
  const header = headers.get("docker-content-digest") ?? "";
  if (digest === "" && header !== "" && size >= 0) {
    const fault = digestFault(header);
    if (fault !== undefined) {
      throw new BunkerdError("Unknown", `${quote(header)} in header not a valid digest: ${fault}`);
    }
    digest = header;
  }
  if (digest === "" || !(size >= 0)) {
    const read = await readManifest(repository, { ...request, method: "GET" });
    if (digest === "" && read.mediaType === MediaType.dockerSchema1) throw schema1(trial);
    mediaType = read.mediaType;
    size = read.size;
    if (digest === "") digest = read.digest;
    else if (read.digest !== digest && size <= MAX_MANIFEST_BYTES && digest.startsWith("sha256:")) {
      throw fail("DataLoss", `${reference}: ${trial.request} answers content of ${read.digest}`);
    }
  }
  if (mediaType === MediaType.dockerSchema1) throw schema1(trial);
  if (size > MAX_MANIFEST_BYTES) {
    const subject = `rejecting ${size} byte manifest for ${reference}`;
    return { rank: 4, error: fail("NotFound", subject), trial };
  }
  return { descriptor: { mediaType, digest, size } };
}

function schema1(trial: Trial): unknown {
  const { dockerSchema1, dockerManifest, ociManifest } = MediaType;
  const what = `media type "${dockerSchema1}" is no longer supported since containerd v2.0`;
  const advice = `please rebuild the image as "${dockerManifest}" or "${ociManifest}"`;
  return afterTrials([trial], new BunkerdError("Unimplemented", `not implemented: ${what}, ${advice}`));
}

/** Some say `text/plain` of everything, and mean schema 1. */
function mediaTypeOf(headers: Headers): string {
  const type = (headers.get("content-type") ?? "").split(";", 1)[0]?.trim() ?? "";
  return type === "text/plain" ? MediaType.dockerSchema1 : type;
}

async function readManifest(
  { session, name }: Repository,
  request: ApiRequest,
): Promise<{ readonly digest: string; readonly size: number; readonly mediaType: string }> {
  const answer = await session.request(name, { ...request, isLastHost: true });
  if (answer.response.status > 299) throw await unexpectedStatus(answer);
  const hash = createHash("sha256");
  let size = 0;
  for await (const piece of readBody(answer.response, request.signal)) {
    hash.update(piece);
    size += piece.length;
    if (size > MAX_MANIFEST_BYTES) break;
  }
  return { digest: `sha256:${hash.digest("hex")}`, size, mediaType: mediaTypeOf(answer.response.headers) };
}
