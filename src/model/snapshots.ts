import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { fail, quote } from "./errors.ts";
import type { Labels } from "./labels.ts";
import type { Scope } from "./scope.ts";

/** Labels with this prefix are handed on from the namespaced snapshot to the snapshotter. */
const INHERITED_PREFIX = "containerd.io/snapshot/";
/** On a prepare: the name under which a remote snapshotter may commit the layer by itself, answering AlreadyExists. Handed on too. */
export const LABEL_SNAPSHOT_REF = "containerd.io/snapshot.ref";
/** How ids of the container map to the host's, as `0:100000:65536`, several by commas. */
export const LABEL_UID_MAPPING = `${INHERITED_PREFIX}uidmapping`;
export const LABEL_GID_MAPPING = `${INHERITED_PREFIX}gidmapping`;

/** The labels of a snapshot that its snapshotter sees (`core/snapshots` FilterInheritedLabels). */
export function inheritedLabels(labels: Labels): Record<string, string> {
  return Object.fromEntries(
    Object.entries(labels).filter(([key]) => key === LABEL_SNAPSHOT_REF || key.startsWith(INHERITED_PREFIX)),
  );
}

/** The labels after an update; without fields all are replaced. @throws InvalidArgument on another field */
export function changedLabels(
  stored: Info,
  wanted: Info,
  fieldPaths: readonly string[],
): Record<string, string> {
  let labels = { ...stored.labels };
  for (const path of fieldPaths.length === 0 ? ["labels"] : fieldPaths) {
    if (path === "labels") labels = { ...wanted.labels };
    else if (path.startsWith("labels.")) {
      const key = path.slice("labels.".length);
      const value = Object.hasOwn(wanted.labels, key) ? (wanted.labels[key] ?? "") : "";
      // Whatever the key, such as `__proto__`.
      labels = Object.fromEntries([...Object.entries(labels), [key, value]]);
    } else {
      const subject = `cannot update ${quote(path)} field on snapshot ${quote(wanted.name)}`;
      throw fail("InvalidArgument", subject);
    }
  }
  return labels;
}

/** What a snapshot takes on disk, without its parents. */
export interface SnapshotUsage {
  /** Bytes of blocks in use. */
  readonly size: bigint;
  readonly inodes: bigint;
}

export interface CommitOptions {
  /** Replace those of the active snapshot. */
  readonly labels?: Labels | undefined;
  /** Becomes the parent of a snapshot that was prepared without one. */
  readonly parent?: string | undefined;
}

/**
 * Commits that are durable in the snapshotter while its caller, which keeps names of its own, may not know of them: it was killed
 * between the two. Only who finds a snapshot gone that it names may take one back.
 */
export interface CommitJournal {
  pending(): readonly PendingCommit[];
  /** Makes the committed snapshot `name` the active one of `info`'s name, parent, labels and time again. @throws NotFound, FailedPrecondition */
  takeBack(name: string, info: Info): Promise<void>;
  /** The caller knows of the commit. */
  settle(name: string): void;
}

export interface PendingCommit {
  readonly name: string;
  /** What it was called when it was active. */
  readonly key: string;
}

/**
 * A tree of layers on disk, keys in one space. A snapshot is active (to be written, then committed or removed), a view
 * (only read), or committed (a parent of others). Who calls mounts. Source of the rules: containerd `core/snapshots/snapshotter.go`;
 * every implementation passes `test/support/snapshotter-suite.ts`.
 */
export interface Snapshotter {
  /** @throws NotFound */
  stat(key: string): Promise<Info>;
  /** Sets the labels, all or those named by `fieldPaths` (`labels`, `labels.<key>`). @throws NotFound, InvalidArgument on another field */
  update(info: Info, fieldPaths?: readonly string[]): Promise<Info>;
  /** Of a committed snapshot what it took when committed; an active one is walked. @throws NotFound */
  usage(key: string, signal?: AbortSignal): Promise<SnapshotUsage>;
  /** How to mount an active snapshot or a view. @throws NotFound, FailedPrecondition on a committed one */
  mounts(key: string): Promise<Mount[]>;
  /** A new active snapshot over a committed parent, or over nothing if that is "". @throws AlreadyExists, NotFound, InvalidArgument */
  prepare(key: string, parent: string, labels?: Labels): Promise<Mount[]>;
  /** The same to be read only. @throws as `prepare` */
  view(key: string, parent: string, labels?: Labels): Promise<Mount[]>;
  /** Turns the active snapshot `key` into the committed one `name`. @throws AlreadyExists, NotFound, FailedPrecondition */
  commit(name: string, key: string, options?: CommitOptions): Promise<void>;
  /** @throws NotFound, FailedPrecondition while it has children */
  remove(key: string): Promise<void>;
  /** Calls back for each snapshot that matches any of the filters (`name`, `parent`, `kind`, `labels.<key>`), by key. @throws InvalidArgument */
  walk(visit: (info: Info) => void, filters?: readonly string[]): Promise<void>;
  /** Frees what removed or abandoned snapshots left on disk. */
  cleanup(): Promise<void>;
  /** To close twice does nothing. */
  close(): Promise<void>;
  /** Of snapshotters that keep one: local ones. */
  readonly journal?: CommitJournal;
}

/**
 * One snapshotter as the namespaces see it: keys of their own, labels, leases, events. Source of the rules: containerd
 * `core/metadata/snapshot.go`.
 */
export interface SnapshotStore {
  readonly name: string;
  stat(scope: Scope, key: string): Promise<Info>;
  update(scope: Scope, info: Info, fieldPaths?: readonly string[]): Promise<Info>;
  usage(scope: Scope, key: string): Promise<SnapshotUsage>;
  mounts(scope: Scope, key: string): Promise<Mount[]>;
  prepare(scope: Scope, key: string, parent: string, labels?: Labels): Promise<Mount[]>;
  view(scope: Scope, key: string, parent: string, labels?: Labels): Promise<Mount[]>;
  commit(scope: Scope, name: string, key: string, options?: CommitOptions): Promise<void>;
  remove(scope: Scope, key: string): Promise<void>;
  /** Snapshots that match, ordered by key, in blocks of at most 100. @throws InvalidArgument */
  list(scope: Scope, filters?: readonly string[]): AsyncIterable<Info[]>;
  /** Takes back commits that the database never learned of. Once, before the first call. */
  recover(): Promise<void>;
  /** Removes what no namespace names from the snapshotter, and frees its space. */
  collect(): Promise<void>;
  /** The same in the background: what fails is logged. */
  sweep(): void;
  /** Waits for what is being freed. */
  close(): Promise<void>;
}

const KIND_NAMES: ReadonlyMap<Info["kind"], string> = new Map([
  [Kind.VIEW, "view"],
  [Kind.ACTIVE, "active"],
  [Kind.COMMITTED, "committed"],
]);

/** What filters see of a snapshot (`core/metadata/adaptors.go`). */
export function snapshotAdaptor(info: Info): { field(path: readonly string[]): string | undefined } {
  return {
    field(path) {
      switch (path[0]) {
        case "kind":
          return KIND_NAMES.get(info.kind);
        case "name":
          return info.name;
        case "parent":
          return info.parent;
        case "labels": {
          const key = path.slice(1).join(".");
          return Object.hasOwn(info.labels, key) ? info.labels[key] : undefined;
        }
        default:
          return undefined;
      }
    },
  };
}
