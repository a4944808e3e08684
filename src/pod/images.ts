/** Step 1 of a container: its image. `pkg/kubelet/images/image_manager.go`. */
import type { AuthConfig, Image, PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import { formatDuration } from "../lib/duration.ts";
import { messageOf } from "../model/errors.ts";
import type { Pod } from "./api/pod.ts";
import type { Backoff } from "./backoff.ts";
import { PodError, type PodErrorReason, pullWords } from "./errors.ts";
import type { Recorder } from "./events.ts";
import { credentialsFor, type PullCredential } from "./pull-secrets.ts";

export type PullPolicy = "Always" | "Never" | "IfNotPresent";

export interface ImageRequest {
  readonly pod: Pod;
  /** For events; empty for a volume's image. */
  readonly container: string;
  readonly image: string;
  readonly policy: PullPolicy | undefined;
  readonly sandbox: PodSandboxConfig;
  readonly credentials: readonly PullCredential[];
  readonly signal: AbortSignal;
  /** What the runtime was asked of the image a moment ago. */
  readonly asked?: Promise<Image | undefined> | undefined;
}

/** An image that the runtime has. */
export interface PresentImage {
  /** What containers are made from. */
  readonly ref: string;
  /** Undefined: the runtime does not tell of it by its reference. */
  readonly image: Image | undefined;
}

export interface ImageParts {
  readonly cri: CriClient;
  readonly record: Recorder;
  readonly pullBackoff: Backoff;
}

const NAME = /^(?:(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?\/)?[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*$/;
const TAG = /^[\w][\w.-]{0,127}$/;
const DIGEST = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/;

/** The reference with `:latest` if it names neither tag nor digest. @throws PodError InvalidImageName */
export function withDefaultTag(image: string): string {
  const [named = "", digest] = image.split("@");
  const colon = named.lastIndexOf(":");
  const tagged = colon > named.lastIndexOf("/");
  const [name, tag] = tagged ? [named.slice(0, colon), named.slice(colon + 1)] : [named, undefined];
  const valid =
    NAME.test(name) && (tag === undefined || TAG.test(tag)) && (digest === undefined || DIGEST.test(digest));
  if (!valid) {
    const reason = `couldn't parse image name ${JSON.stringify(image)}: invalid reference format`;
    throw new PodError(
      "InvalidImageName",
      `Failed to apply default image tag ${JSON.stringify(image)}: ${reason}`,
    );
  }
  return tag === undefined && digest === undefined ? `${image}:latest` : image;
}

/** `SetDefaults_Container`: what is called latest is asked for each time. */
export function defaultPolicy(image: string): PullPolicy {
  return /:latest$/.test(withDefaultTag(image)) ? "Always" : "IfNotPresent";
}

/**
 * Asks for an image that {@link ensureImage} will want to know of, once others have gone first; undefined if it will not. A failure
 * is for {@link ensureImage}.
 */
export function askForImage(
  { cri }: ImageParts,
  wanted: string,
  policy: PullPolicy | undefined,
  others: Promise<unknown>,
): Promise<Image | undefined> | undefined {
  let image: string;
  try {
    image = withDefaultTag(wanted);
  } catch (error) {
    if (error instanceof PodError) return undefined;
    throw error;
  }
  if ((policy ?? defaultPolicy(wanted)) === "Always") return undefined;
  const asked = others.then(() => cri.imageStatus(image));
  asked.catch(() => undefined);
  return asked;
}

/** Pulls the image unless it is there and need not be. @throws PodError */
export async function ensureImage(parts: ImageParts, request: ImageRequest): Promise<PresentImage> {
  const { pod, container, image: wanted } = request;
  const quoted = JSON.stringify(wanted);
  const tell = (type: "Normal" | "Warning", reason: string, message: string): void =>
    parts.record(pod, container, type, reason, message);
  let image: string;
  try {
    image = withDefaultTag(wanted);
  } catch (error) {
    tell("Warning", "InspectFailed", messageOf(error));
    throw error;
  }
  const policy = request.policy ?? defaultPolicy(wanted);
  if (policy !== "Always") {
    const present = await inspect(parts, image, request.asked, tell);
    if (present !== undefined) {
      const told = `Container image ${quoted} already present on machine and can be accessed by the pod`;
      tell("Normal", "Pulled", told);
      return { ref: present.id, image: present };
    }
    if (policy === "Never") {
      const message = `Container image ${quoted} is not present with pull policy of Never`;
      tell("Warning", "ErrImageNeverPull", message);
      throw new PodError("ErrImageNeverPull", message);
    }
  }
  return pull(parts, request, image, tell);
}

type Tell = (type: "Normal" | "Warning", reason: string, message: string) => void;

async function inspect(
  { cri }: ImageParts,
  image: string,
  asked: ImageRequest["asked"],
  tell: Tell,
): Promise<Image | undefined> {
  try {
    return await (asked?.catch(() => cri.imageStatus(image)) ?? cri.imageStatus(image));
  } catch (error) {
    const message = `Failed to inspect image ${JSON.stringify(image)}: ${messageOf(error)}`;
    tell("Warning", "InspectFailed", message);
    throw new PodError("ImageInspectError", message, { cause: error });
  }
}

/** What the last pull of a key said, to be repeated while it is held back. */
const lastFailures = new WeakMap<Backoff, Map<string, string>>();

async function pull(
  parts: ImageParts,
  request: ImageRequest,
  image: string,
  tell: Tell,
): Promise<PresentImage> {
  const { cri, pullBackoff } = parts;
  const key = `${request.pod.metadata.uid}_${image}`;
  const failures = lastFailures.get(pullBackoff) ?? new Map<string, string>();
  lastFailures.set(pullBackoff, failures);
  if (pullBackoff.endsAfterUpdate(key) !== undefined) {
    const message = `Back-off pulling image ${JSON.stringify(image)}`;
    tell("Normal", "BackOff", message);
    throw new PodError("ImagePullBackOff", `${message}: ${failures.get(key) ?? ""}`);
  }
  tell("Normal", "Pulling", `Pulling image ${JSON.stringify(image)}`);
  const startedAt = performance.now();
  try {
    const ref = await pullWithAny(cri, request, image);
    const took = formatDuration(Math.trunc(performance.now() - startedAt));
    const pulled = await cri.imageStatus(ref);
    const done = `Successfully pulled image ${JSON.stringify(image)} in ${took} (${took} including waiting).`;
    tell("Normal", "Pulled", `${done} Image size: ${pulled?.size ?? 0n} bytes.`);
    return { ref, image: pulled };
  } catch (error) {
    if (request.signal.aborted) throw error;
    const words = pullWords(error);
    tell("Warning", "Failed", `Failed to pull image ${JSON.stringify(image)}: ${words}`);
    pullBackoff.next(key, Date.now());
    const { reason, message } = pullFailure(image, words);
    failures.set(key, `${reason}: ${message}`);
    throw new PodError(reason, message, { cause: error });
  }
}

/** What CRI lets a runtime begin its words with (`cri-api/pkg/errors`; CRI-O does): the reason is the pod's then. `evalCRIPullErr`. */
const TOLD_REASONS = {
  RegistryUnavailable: "the registry is unavailable",
  SignatureValidationFailed: "the signature validation failed",
} as const satisfies Partial<Record<PodErrorReason, string>>;

/** @param words of the runtime, as {@link pullWords} has them */
export function pullFailure(image: string, words: string): { reason: PodErrorReason; message: string } {
  for (const [reason, because] of Object.entries(TOLD_REASONS) as [keyof typeof TOLD_REASONS, string][]) {
    if (words.startsWith(reason))
      return {
        reason,
        message: `image pull failed for ${image} because ${because}${words.slice(reason.length)}`,
      };
  }
  return { reason: "ErrImagePull", message: words };
}

/** With each of the credentials for the registry in turn, as kubelets do. */
async function pullWithAny(cri: CriClient, request: ImageRequest, image: string): Promise<string> {
  const auths: (AuthConfig | undefined)[] = credentialsFor(image, request.credentials);
  if (auths.length === 0) auths.push(undefined);
  const failures: unknown[] = [];
  for (const auth of auths) {
    request.signal.throwIfAborted();
    try {
      const spec = {
        image,
        userSpecifiedImage: request.image,
        annotations: request.pod.metadata.annotations,
      };
      return await cri.pullImage(spec, auth, request.sandbox, request.signal);
    } catch (error) {
      failures.push(error);
    }
  }
  throw failures[0];
}
