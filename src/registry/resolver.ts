import type { Logger } from "../lib/log.ts";
import { parseReference } from "../model/references.ts";
import type { CredentialSource, Resolver } from "../model/remotes.ts";
import { createFetcher } from "./fetcher.ts";
import type { Mirrors } from "./mirrors.ts";
import { createPusher } from "./pusher.ts";
import { Session } from "./requests.ts";
import { type Repository, resolve } from "./resolve.ts";

export interface ResolverOptions {
  /** `certs.d`: a folder a host with its `hosts.toml` or certificates, read anew for each session. Absent or empty: defaults for every host. Of several the first that has the host. */
  readonly hostsDirectory?: string | readonly string[] | undefined;
  /** Asked before a host for which there is no such folder. */
  readonly mirrors?: Mirrors | undefined;
  /** `http` or `https` for hosts that no file names; absent: https, for loopback hosts with a port plain http with https tried first. */
  readonly defaultScheme?: string | undefined;
  readonly credentials?: CredentialSource | undefined;
  /** Folder with Docker's `config.json`, asked where `credentials` knows none. Absent or empty: nobody is asked. */
  readonly dockerConfigDirectory?: string | undefined;
  /** Sent with every request to a registry; never to hosts that it redirects to. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
  /** Requests at once for one blob; below 2, or with pieces below 512 bytes: one. */
  readonly maxConcurrentDownloads?: number | undefined;
  /** Bytes of each ranged request; 0: a blob is one request. */
  readonly concurrentLayerFetchBuffer?: number | undefined;
  /** Waits for the right to one more request for content; the function returned gives it back. Shared with other sessions as the caller likes. */
  readonly limit?: ((signal?: AbortSignal) => Promise<() => void>) | undefined;
  /** Takes the heads of requests and answers, secrets left out: `ctr --http-dump`. */
  readonly dump?: ((text: string) => void) | undefined;
  readonly logger: Logger;
}

/**
 * A session with registries, for one pull or push (or as long as its credentials hold):
 *
 *     const resolver = createResolver({ hostsDirectory: "/etc/containerd/certs.d", credentials, logger });
 *     const { name, descriptor } = await resolver.resolve("docker.io/library/busybox:latest", signal);
 *     const fetcher = await resolver.fetcher(name);
 *     for await (const piece of fetcher.fetch(descriptor, { offsetBytes, verify: false, signal })) await writer.write(piece);
 *     const pusher = await resolver.pusher(`${reference}@${descriptor.digest}`);
 *     await pusher.push(descriptor, () => readBlob(descriptor), { signal });
 *     resolver.close();
 */
export function createResolver(options: ResolverOptions): Resolver {
  const session = new Session(options);
  const repositoryOf = (reference: string): Repository => {
    const name = parseReference(reference);
    return { session, name, reference, hosts: session.hostsOf(name.host) };
  };
  return {
    resolve: async (reference, signal) => await resolve(repositoryOf(reference), signal),
    fetcher: async (reference) => createFetcher(repositoryOf(reference)),
    pusher: async (reference) => createPusher(repositoryOf(reference)),
    close: () => session.close(),
  };
}
