import type { OciDescriptor } from "./oci.ts";

/*
 * What `registry/` offers and `transfer/` and `cri/` use. Source of the rules: containerd `core/remotes/resolver.go`.
 */

/** A name found at a registry. */
export interface Resolved {
  /** The reference as it was asked for. */
  readonly name: string;
  /** Digest, size and media type of what it names; nothing else. */
  readonly descriptor: OciDescriptor;
}

/**
 * One session with registries: connections and tokens are kept and shared by all that it makes. Every error names the reference, each host that was tried
 * with its URL and status, and the file that decided for it; none holds a secret. Classes: NotFound, InvalidArgument (reference, hosts.toml),
 * Unimplemented (schema 1), Canceled (the signal), Unknown for the rest, as containerd has it.
 */
export interface Resolver {
  /** Asks what `reference` (`host/repository:tag`, `…@digest`) names. */
  resolve(reference: string, signal?: AbortSignal): Promise<Resolved>;
  /** Reads blobs and manifests of the reference's repository. */
  fetcher(reference: string): Promise<Fetcher>;
  /**
   * Writes to the reference's repository. A manifest whose digest is the one in `host/repository:tag@digest` is put under the tag, any other under its
   * digest; without `@digest` each manifest is put under the tag.
   */
  pusher(reference: string): Promise<Pusher>;
  /** Forgets credentials and tokens. What is going on goes on; idle connections end by themselves. */
  close(): void;
}

export interface FetchOptions {
  /** Skips so many bytes: to go on with a half-written ingest. */
  readonly offsetBytes?: number | undefined;
  /** Ends after so many bytes from the offset; absent: to the end. */
  readonly lengthBytes?: number | undefined;
  /**
   * Checks the digest of a blob that is read whole, its last piece is handed over only if it is right. Default true; false for who checks anyway, as
   * content's commit does. The size is always checked, and a part of a blob cannot be.
   */
  readonly verify?: boolean | undefined;
  /** Is told of each answer that bytes are read from, as messages show it: `GET https://… (/etc/…/hosts.toml)`. */
  readonly onOrigin?: ((origin: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Fetcher {
  /**
   * Reads a blob, a manifest or a part of it, in pieces that the caller may keep. Nothing is asked for before the first `next()`; who stops early
   * (`break`) closes the connection. Cut connections are taken up where they ended; large blobs may come by several connections, in order.
   * @throws DataLoss if size or digest differ, NotFound if no host has it
   */
  fetch(descriptor: OciDescriptor, options?: FetchOptions): AsyncIterable<Uint8Array>;
  /**
   * The same for who knows the digest alone: looked for among blobs, then among manifests. The descriptor's media type is `mediaType` or
   * `application/octet-stream`.
   */
  fetchByDigest(digest: string, options?: FetchByDigestOptions): Promise<FetchedByDigest>;
}

export interface FetchByDigestOptions {
  readonly mediaType?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FetchedByDigest {
  readonly descriptor: OciDescriptor;
  readonly body: AsyncIterable<Uint8Array>;
}

/** The bytes to push from their beginning; called again when an upload must begin anew. */
export type BlobSource = () => AsyncIterable<Uint8Array>;

export interface PushOptions {
  /** Called with the bytes sent so far; they may go back when an upload begins anew. */
  readonly onProgress?: ((sentBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type PushOutcome =
  | { readonly kind: "pushed" }
  /** The registry had it. */
  | { readonly kind: "exists" }
  /** The registry took it from another repository, `host/repository`. */
  | { readonly kind: "mounted"; readonly from: string };

export interface Pusher {
  /**
   * Puts a blob or manifest there unless it is there. Annotations `containerd.io/distribution.source.<host>` (the labels of the blob) name repositories of
   * the same registry that it may be mounted from.
   * @throws DataLoss if the source does not have the descriptor's size
   */
  push(descriptor: OciDescriptor, source: BlobSource, options?: PushOptions): Promise<PushOutcome>;
}

/** What a registry's user is known by. */
export type Credentials =
  | { readonly username: string; readonly secret: string }
  /** A refresh (identity) token. */
  | { readonly username?: undefined; readonly secret: string }
  /** A whole `Authorization` header. */
  | { readonly header: string };

export interface CredentialRequest {
  /** With its port: `registry.example:5000`; Docker Hub is `registry-1.docker.io`. */
  readonly host: string;
  /** Header values `WWW-Authenticate` of the answer that asks for them. */
  readonly challenges: readonly string[];
}

/** Undefined: none, go on as a stranger. What it throws ends the request. */
export type CredentialSource = (request: CredentialRequest) => Promise<Credentials | undefined>;
