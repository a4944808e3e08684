import { GarbageCollection } from "#gen/bunkerd/gc/v1/gc_pb.ts";
import type { CollectionScheduler, GarbageCollector } from "../model/collection.ts";
import { fail, quote } from "../model/errors.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";

/** Objects that one message tells of. */
const OBJECTS_AT_ONCE = 1000;

export interface CollectionDependencies {
  readonly collector: GarbageCollector;
  readonly collection: CollectionScheduler;
}

/** bunkerd.gc.v1.GarbageCollection, which containerd does not have: what `bunkerd gc` asks. */
export function collectionService(
  dependencies: CollectionDependencies,
): ServiceBinding<typeof GarbageCollection> {
  const { collector, collection } = dependencies;
  return bind(GarbageCollection, {
    async *collect({ dryRun }, { signal }) {
      const objects = dryRun ? await collector.plan() : (await collection.request(signal)).removed;
      for (let at = 0; at < objects.length; at += OBJECTS_AT_ONCE) {
        yield { objects: objects.slice(at, at + OBJECTS_AT_ONCE).map((object) => ({ ...object })) };
      }
    },
    async explain({ namespace, kind, key }) {
      const found = collector.find(namespace, key).filter((object) => kind === "" || object.kind === kind);
      if (found.length === 0) {
        throw fail(
          "NotFound",
          `${kind === "" ? "object" : kind} ${quote(key)} in namespace ${quote(namespace)}`,
        );
      }
      const explanations = [];
      for (const object of found) {
        const links = (await collector.explain(object)) ?? [];
        const path = links.map(({ object: step, reason }) => ({ object: { ...step }, reason }));
        explanations.push({ object: { ...object }, path });
      }
      return { explanations };
    },
  });
}
