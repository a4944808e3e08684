import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Adaptor } from "../lib/filters.ts";
import { wireFields } from "../lib/wire.ts";
import { fail, quote } from "../model/errors.ts";
import { encodeRecord } from "./container-encoding.ts";
import { readRecord } from "./container-record.ts";
import { EMPTY, objectsBucket, textOf } from "./schema.ts";

/** What an entry costs beside its bytes: objects, strings, its place in a map and in a list. Estimated. */
const ENTRY_OVERHEAD_BYTES = 400;
const ID_OVERHEAD_BYTES = 80;
/** Labels that were read take so many times their encoded bytes. Estimated. */
const LABELS_READ = 4;

/** One container as bytes, with what filters ask for beside them. */
export class CachedContainer implements Adaptor {
  readonly id: string;
  /** The container as field 1 of a response: GetContainerResponse, ListContainersResponse, ListContainerMessage. */
  readonly framed: Uint8Array;
  /** Memory that it takes, estimated; labels as if read. */
  readonly sizeBytes: number;
  readonly #image: string;
  readonly #runtimeName: string;
  /** Read out of the bytes when a filter first asks. */
  #labels: ReadonlyMap<string, string> | undefined;

  /** @throws DataLoss, naming the container */
  constructor(id: string, bucket: Bucket) {
    const { image, runtimeName, labelsBytes, framed } = encodeRecord(readRecord(id, bucket));
    this.id = id;
    this.framed = framed;
    this.#image = textOf(image);
    this.#runtimeName = textOf(runtimeName);
    this.sizeBytes = ENTRY_OVERHEAD_BYTES + framed.length + image.length + LABELS_READ * labelsBytes;
  }

  /** The fields that containerd's filters see (`core/metadata/adaptors.go`). */
  field(path: readonly string[]): string | undefined {
    switch (path[0]) {
      case "id":
        return this.id || undefined;
      case "image":
        return this.#image || undefined;
      case "runtime":
        return path[1] === "name" ? this.#runtimeName || undefined : undefined;
      case "labels":
        this.#labels ??= readLabels(this.framed);
        return this.#labels.get(path.length === 2 ? (path[1] ?? "") : path.slice(1).join("."));
      default:
        return undefined;
    }
  }
}

/** Labels are field 2 of a container, and each a message of key and value. */
function readLabels(framed: Uint8Array): Map<string, string> {
  const labels = new Map<string, string>();
  const [container] = wireFields(framed);
  for (const field of wireFields(container?.content ?? EMPTY)) {
    if (field === undefined || field.number > 2) break;
    if (field.number < 2) continue;
    const [key, value] = wireFields(field.content);
    labels.set(textOf(key?.content), textOf(value?.content));
  }
  return labels;
}

/** What is known of one namespace. */
interface Namespace {
  /** Every container's id, in order, once the bucket was walked. */
  ids: string[] | undefined;
  readonly containers: Map<string, CachedContainer>;
  sizeBytes: number;
  lastUse: number;
}

/**
 * Containers as bytes, read from the database when first asked for. Never wrong: {@link changed} drops an entry as soon as its change is
 * durable, and entries are made from the newest snapshot in one synchronous turn, so that no change can come between. Holds at
 * most `maxBytes`: the namespaces not used for longest go first, and a namespace that alone is larger is held in part.
 */
export class ContainerCache {
  readonly #db: Db;
  readonly #maxBytes: number;
  readonly #namespaces = new Map<string, Namespace>();
  #sizeBytes = 0;
  #uses = 0;

  constructor(db: Db, maxBytes: number) {
    this.#db = db;
    this.#maxBytes = maxBytes;
  }

  /** Memory held, estimated. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** @throws NotFound, DataLoss */
  get(namespace: string, id: string): CachedContainer {
    const known = this.#namespaces.get(namespace);
    const cached = known?.containers.get(id);
    if (known !== undefined && cached !== undefined) {
      known.lastUse = ++this.#uses;
      return cached;
    }
    return this.#db.view((tx) => {
      const bucket = objectsBucket(tx, namespace, "containers")?.bucket(id);
      if (bucket === undefined) {
        throw fail("NotFound", `container ${quote(id)} in namespace ${quote(namespace)}`);
      }
      const container = new CachedContainer(id, bucket);
      this.#keep(this.#use(namespace), container);
      return container;
    });
  }

  /** All containers, in order of their ids. @throws DataLoss */
  list(namespace: string): CachedContainer[] {
    const known = this.#namespaces.get(namespace);
    if (known?.ids !== undefined && known.containers.size === known.ids.length) {
      known.lastUse = ++this.#uses;
      return known.ids.flatMap((id) => known.containers.get(id) ?? []);
    }
    return this.#db.view((tx) => this.#listFrom(tx, namespace));
  }

  #listFrom(tx: Tx, namespace: string): CachedContainer[] {
    const bucket = objectsBucket(tx, namespace, "containers");
    if (bucket === undefined) return [];
    const known = this.#use(namespace);
    const ids = known.ids ?? this.#walkIds(known, bucket);
    const containers: CachedContainer[] = [];
    for (const id of ids) {
      const cached = known.containers.get(id);
      const container = cached ?? loadIfThere(id, bucket);
      if (container === undefined) continue;
      containers.push(container);
      if (cached === undefined) this.#keep(known, container);
    }
    return containers;
  }

  #walkIds(known: Namespace, bucket: Bucket): string[] {
    const ids: string[] = [];
    bucket.forEach((key, value) => {
      if (value === undefined) ids.push(textOf(key));
    });
    const sizeBytes = ids.reduce((sum, id) => sum + idSize(id), 0);
    if (this.#makeRoom(known, sizeBytes)) {
      known.ids = ids;
      this.#grow(known, sizeBytes);
    }
    return ids;
  }

  /** To be called when a change of a container is durable, in the order of commits. */
  changed(namespace: string, id: string, change: "created" | "updated" | "deleted"): void {
    const known = this.#namespaces.get(namespace);
    if (known === undefined) return;
    const stale = known.containers.get(id);
    if (stale !== undefined) {
      known.containers.delete(id);
      this.#grow(known, -stale.sizeBytes);
    }
    if (known.ids === undefined || change === "updated") return;
    const index = lowerBound(known.ids, id);
    const there = known.ids[index] === id;
    if (change === "created" && !there) {
      known.ids.splice(index, 0, id);
      this.#grow(known, idSize(id));
      if (this.#sizeBytes > this.#maxBytes) this.forget(namespace);
    } else if (change === "deleted" && there) {
      known.ids.splice(index, 1);
      this.#grow(known, -idSize(id));
    }
  }

  /** To be called when a namespace is gone. */
  forget(namespace: string): void {
    const known = this.#namespaces.get(namespace);
    if (known === undefined) return;
    this.#namespaces.delete(namespace);
    this.#sizeBytes -= known.sizeBytes;
  }

  #use(namespace: string): Namespace {
    let known = this.#namespaces.get(namespace);
    if (known === undefined) {
      known = { ids: undefined, containers: new Map(), sizeBytes: 0, lastUse: 0 };
      this.#namespaces.set(namespace, known);
    }
    known.lastUse = ++this.#uses;
    return known;
  }

  #keep(known: Namespace, container: CachedContainer): void {
    const sizeBytes = container.sizeBytes;
    if (!this.#makeRoom(known, sizeBytes)) return;
    known.containers.set(container.id, container);
    this.#grow(known, sizeBytes);
  }

  /** Forgets other namespaces until `sizeBytes` more fit; false if they never will. */
  #makeRoom(known: Namespace, sizeBytes: number): boolean {
    if (known.sizeBytes + sizeBytes > this.#maxBytes) return false;
    while (this.#sizeBytes + sizeBytes > this.#maxBytes) {
      let oldest: [string, Namespace] | undefined;
      for (const entry of this.#namespaces) {
        if (entry[1] !== known && (oldest === undefined || entry[1].lastUse < oldest[1].lastUse))
          oldest = entry;
      }
      if (oldest === undefined) return false;
      this.forget(oldest[0]);
    }
    return true;
  }

  #grow(known: Namespace, sizeBytes: number): void {
    known.sizeBytes += sizeBytes;
    this.#sizeBytes += sizeBytes;
  }
}

function loadIfThere(id: string, containers: Bucket): CachedContainer | undefined {
  const bucket = containers.bucket(id);
  return bucket === undefined ? undefined : new CachedContainer(id, bucket);
}

function idSize(id: string): number {
  return ID_OVERHEAD_BYTES + id.length;
}

/** Index of the first id that is not before `id`. */
function lowerBound(ids: readonly string[], id: string): number {
  let [low, high] = [0, ids.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ids[middle] ?? "") < id) low = middle + 1;
    else high = middle;
  }
  return low;
}
