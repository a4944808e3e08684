/** What garbage collection sees of objects that live in memory: streams, mounts (containerd `core/metadata/gc.go`, Collector). */
export interface Collectible {
  all(): Iterable<{ readonly namespace: string; readonly id: string }>;
  /** Those that live without a lease. */
  active(namespace: string): Iterable<string>;
  leased(namespace: string, lease: string): Iterable<string>;
  /** Those that live as long as another object, `owner`, by a `gc.bref.*` label of their own. */
  backReferences?(namespace: string): Iterable<{ readonly owner: CollectedObject; readonly id: string }>;
  /** Lets go of it; none is no error. */
  remove(namespace: string, id: string): void;
  /** Resolves when all that was removed is gone: the collection is over. */
  flush?(): Promise<void>;
}

/** An object as collections and their reports name it. */
export interface CollectedObject {
  /** `image`, `content`, `snapshot`, `lease`, `ingest`, `container`, `sandbox`, or the name of a {@link Collectible}. */
  readonly kind: string;
  readonly namespace: string;
  /** Name, digest, reference or id; of a snapshot `<snapshotter>/<key>`. */
  readonly key: string;
}

export interface CollectionReport {
  /** In the order in which they went. */
  readonly removed: readonly CollectedObject[];
  /** Processor time of mark and removal of records. */
  readonly workMs: number;
  /** When the next object expires, in nanoseconds since 1970. */
  readonly nextExpiry: bigint | undefined;
}

/** One step from a root to an object. */
export interface KeptLink {
  readonly object: CollectedObject;
  /** Why it is kept: `image`, `lease`, a label's name, `target`, `parent`, … */
  readonly reason: string;
}

export interface GarbageCollector {
  /** Collects objects of another kind with the rest; labels refer to them by `containerd.io/gc.ref.<kind>`. */
  register(kind: string, collectible: Collectible): void;
  /** Removes what nothing keeps; resolves when files are gone too. One at a time. */
  collect(): Promise<CollectionReport>;
  /** What {@link collect} would remove. */
  plan(): Promise<readonly CollectedObject[]>;
  /** The shortest way from a root to the object; undefined if nothing keeps it. @throws NotFound */
  explain(object: CollectedObject): Promise<readonly KeptLink[] | undefined>;
  /** Objects of a namespace by their key, of any kind. */
  find(namespace: string, key: string): readonly CollectedObject[];
}

/** Runs collections, when they are worth their time or somebody asks. */
export interface CollectionScheduler {
  /** Resolves after a collection that began after this call. @throws Internal if it failed */
  request(signal?: AbortSignal): Promise<CollectionReport>;
}
