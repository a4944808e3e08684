import type { Semaphore } from "../lib/semaphore.ts";
import { TaskGroup } from "../lib/task-group.ts";
import type { ContentStore } from "../model/content.ts";
import { isIndex, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { PlatformMatcher } from "../model/platforms.ts";
import type { Pusher } from "../model/remotes.ts";
import type { Scope } from "../model/scope.ts";
import { readBlob } from "./blob-bytes.ts";
import { childrenOf } from "./documents.ts";
import type { ProgressTracker } from "./progress.ts";
import { annotateSources } from "./sources.ts";

export interface Push {
  readonly content: ContentStore;
  readonly pusher: Pusher;
  readonly platforms: PlatformMatcher;
  /** Blobs that are sent at the same time, of all pushes; absent: any number. */
  readonly limit: Semaphore | undefined;
  readonly tracker: ProgressTracker | undefined;
}

/**
 * Sends an image: blobs side by side, then the manifests that name them, then indexes, the innermost first, so that a registry never sees a name for what
 * it lacks (containerd `core/remotes` PushContent). @throws NotFound if a blob is not here, and what the registry says
 */
export async function pushContent(push: Push, scope: Scope, target: OciDescriptor): Promise<void> {
  const manifests: OciDescriptor[] = [];
  const indexes: OciDescriptor[] = [];
  await inGroup(scope, async (group, inner) => {
    const visited = new Set<string>();
    const visit = async (descriptor: OciDescriptor): Promise<void> => {
      push.tracker?.add(descriptor);
      const { mediaType } = descriptor;
      const all = await childrenOf(push.content, inner, descriptor);
      const wanted = all.filter(({ platform }) => platform === undefined || push.platforms.match(platform));
      const children = await annotateSources(push.content, inner, descriptor, wanted);
      push.tracker?.addChildren(descriptor, children);
      if (isManifest(mediaType)) manifests.push(descriptor);
      else if (isIndex(mediaType)) indexes.push(descriptor);
      else await pushBlob(push, inner, descriptor);
      for (const child of children) start(child);
    };
    const start = (descriptor: OciDescriptor): void => {
      if (visited.has(descriptor.digest)) return;
      visited.add(descriptor.digest);
      group.run(() => visit(descriptor));
    };
    start(target);
  });
  await inGroup(scope, async (group, inner) => {
    for (const manifest of manifests) group.run(() => pushBlob(push, inner, manifest));
  });
  for (const index of indexes.toReversed()) await pushBlob(push, scope, index);
}

async function inGroup(
  scope: Scope,
  begin: (group: TaskGroup, inner: Scope) => Promise<void>,
): Promise<void> {
  const group = new TaskGroup(scope.signal);
  await begin(group, { namespace: scope.namespace, lease: scope.lease, signal: group.signal });
  await group.wait();
}

async function pushBlob(push: Push, scope: Scope, descriptor: OciDescriptor): Promise<void> {
  const { content, pusher, limit, tracker } = push;
  const { signal } = scope;
  const release = await limit?.acquire(signal);
  try {
    const source = () => readBlob(content, scope, descriptor.digest);
    const onProgress = (sentBytes: number): void => tracker?.moved(descriptor, sentBytes);
    const { kind } = await pusher.push(descriptor, source, { onProgress, signal });
    if (kind === "exists") tracker?.exists(descriptor);
    else tracker?.done(descriptor);
  } finally {
    release?.();
  }
}
