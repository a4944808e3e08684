import type { Resource } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import type { Tx } from "../bolt/tx.ts";
import { digestFault } from "../model/digests.ts";
import { fail } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { EMPTY, objectsBucket } from "./schema.ts";

const MAX_SHOWN_CHARACTERS = 256;

/** Where a lease keeps a resource: buckets from the lease's down, and the key in the last one. */
export interface ResourcePlace {
  readonly buckets: readonly string[];
  readonly key: string;
}

/** @throws InvalidArgument on a malformed type or digest, Unimplemented on an unknown type; worded as containerd's */
export function placeOf({ id, type }: Resource): ResourcePlace {
  const buckets = type.split("/");
  switch (buckets[0]) {
    case "content":
    case "ingests":
    case "images":
      if (buckets.length !== 1) throw fail("InvalidArgument", `invalid resource type ${shown(type)}`);
      if (type === "content") validateDigest(id);
      return { buckets, key: id };
    case "snapshots":
      if (buckets.length !== 2)
        throw fail("InvalidArgument", `invalid snapshot resource type ${shown(type)}`);
      return { buckets, key: id };
    default:
      throw fail("Unimplemented", `resource type ${shown(type)} not supported yet`);
  }
}

function validateDigest(digest: string): void {
  const fault = digestFault(digest);
  if (fault === undefined) return;
  throw fail("InvalidArgument", `invalid content resource id ${shown(digest)}: ${fault}`);
}

/**
 * Adds a resource to the lease that the call carries; false if it carries none. `buckets` as in {@link ResourcePlace}.
 * @throws NotFound without that lease
 */
export function addToLease(tx: Tx, scope: Scope, buckets: readonly string[], key: string): boolean {
  if (scope.lease === undefined) return false;
  const lease = objectsBucket(tx, scope.namespace, "leases")?.bucket(scope.lease);
  if (lease === undefined) throw fail("NotFound", "lease does not exist");
  buckets.reduce((bucket, name) => bucket.createBucketIfNotExists(name), lease).put(key, EMPTY);
  return true;
}

/** Takes a resource out of the lease that the call carries, if it is there. */
export function removeFromLease(tx: Tx, scope: Scope, buckets: readonly string[], key: string): void {
  if (scope.lease === undefined) return;
  const lease = objectsBucket(tx, scope.namespace, "leases")?.bucket(scope.lease);
  buckets.reduce((bucket, name) => bucket?.bucket(name), lease)?.delete(key);
}

function shown(text: string): string {
  return text.length <= MAX_SHOWN_CHARACTERS ? text : `${text.slice(0, MAX_SHOWN_CHARACTERS)}...`;
}
