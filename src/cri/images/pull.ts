import { create } from "@bufbuild/protobuf";
import {
  type AuthConfig,
  type PodSandboxConfig,
  type PullImageRequest,
  PullImageRequestSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { authHost } from "../../config/cri-faults.ts";
import { fail, quote, within } from "../../model/errors.ts";
import { normalizeImageName } from "../../model/image-names.ts";
import { hostPlatform, onlyPlatform } from "../../model/platforms.ts";
import type { Credentials } from "../../model/remotes.ts";
import type { Scope } from "../../model/scope.ts";
import type { ImagesContext } from "./context.ts";
import { credentials, credentialsOf } from "./credentials.ts";
import { decryptionPayloads } from "./decryption.ts";
import type { LocalImage } from "./local-images.ts";
import { imageLabels, recordReference, repositoryNames } from "./managed.ts";
import { resolveImage } from "./status.ts";

/** Names the runtime handler in pods of kubelets that do not say it otherwise. */
const HANDLER_ANNOTATION = "io.containerd.cri.runtime-handler";

/**
 * Pulls and unpacks an image and lets its name, its digest and its id stand for it (containerd `internal/cri/server/images/image_pull.go`). The id.
 * @throws as `LocalTransfers.pullImage` does, DeadlineExceeded if nothing comes for `image_pull_progress_timeout`
 */
export async function pullImage(
  context: ImagesContext,
  scope: Scope,
  { image, auth, sandboxConfig }: PullImageRequest,
): Promise<string> {
  const wanted = image?.image ?? "";
  const name = normalizeImageName(wanted, `failed to parse image reference ${quote(wanted)}`);
  const snapshotter = snapshotterFor(context, sandboxConfig, image?.runtimeHandler ?? "");
  const { id, target } = await pull(context, scope, { name, snapshotter, auth });
  for (const reference of [id, ...repositoryNames(name, target.digest)]) {
    await recordReference(context, scope, reference, target, imageLabels(context, name)).catch(
      (error: unknown) => {
        throw within(`failed to create image reference ${quote(reference)}`, error);
      },
    );
  }
  context.local.invalidate();
  return id;
}

interface Wanted {
  readonly name: string;
  readonly snapshotter: string;
  readonly auth: AuthConfig | undefined;
}

async function pull(context: ImagesContext, scope: Scope, { name, snapshotter, auth }: Wanted) {
  const { config, transfers, local } = context;
  const {
    registry,
    image_pull_progress_timeout: stallTimeoutMs,
    discard_unpacked_layers: discardsLayers,
  } = config.images;
  const image = await transfers
    .pullImage(scope, name, {
      selection: { platforms: onlyPlatform(hostPlatform()) },
      labels: imageLabels(context, name),
      unpack: { snapshotter, payloadsOf: decryptionPayloads(config) },
      stallTimeoutMs,
      discardsLayers,
      resolver: {
        hostsDirectory: registry.config_path.split(":"),
        mirrors: registry.mirrors,
        headers: registry.headers,
        credentials: credentialsOf(auth, configuredCredentials(context)),
      },
    })
    .catch((error: unknown) => {
      throw within(`failed to pull and unpack image ${quote(name)}`, error);
    });
  const description = await local.describe(scope, image);
  if (description === undefined || image.target === undefined)
    throw fail("NotFound", `image ${quote(name)} as pulled`);
  return { id: description.id, target: image.target };
}

/** Of `registry.configs`, and of `registry.auths`, which stand over them, by host. */
function configuredCredentials({ config }: ImagesContext): ReadonlyMap<string, Credentials> {
  const { configs, auths } = config.images.registry;
  const fields = new Map(Object.entries(configs).map(([host, { auth }]) => [host, auth]));
  for (const [endpoint, auth] of Object.entries(auths)) fields.set(authHost(endpoint) ?? endpoint, auth);
  const found = [...fields].flatMap(([host, { username, password, auth, identitytoken: identityToken }]) => {
    const known = credentials({ username, password, auth, identityToken });
    return known === undefined ? [] : [[host, known] as const];
  });
  return new Map(found);
}

/** That of the pod's runtime handler, if it has one of its own (`runtime_platforms`, and the handler's `snapshotter`). */
function snapshotterFor({ config }: ImagesContext, pod: PodSandboxConfig | undefined, named: string): string {
  const handler = named || (pod?.annotations[HANDLER_ANNOTATION] ?? "");
  const { snapshotter, runtime_platforms: platforms } = config.images;
  const { runtimes } = config.runtime.containerd;
  const platform = Object.hasOwn(platforms, handler) ? platforms[handler]?.snapshotter : undefined;
  const own = Object.hasOwn(runtimes, handler) ? runtimes[handler]?.snapshotter : undefined;
  return platform || own || snapshotter;
}

/** The image, pulled if it is not here. @throws as {@link pullImage} does */
export async function ensureImage(
  context: ImagesContext,
  scope: Scope,
  name: string,
  sandboxConfig: PodSandboxConfig,
): Promise<LocalImage> {
  const here = await resolveImage(context.local, scope, name);
  if (here !== undefined) return here;
  const request = create(PullImageRequestSchema, { image: { image: name }, sandboxConfig });
  return await context.local.get(scope, await pullImage(context, scope, request));
}
