import type { Resource } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { type BunkerdError, fail } from "../model/errors.ts";

/** Algorithms of go-digest and the length of their hexadecimal sums. */
const DIGEST_LENGTHS: ReadonlyMap<string, number> = new Map([
  ["sha256", 64],
  ["sha384", 96],
  ["sha512", 128],
]);
const DIGEST = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
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

/** The order of the checks and their words are go-digest's. */
function validateDigest(digest: string): void {
  const invalid = (reason: string): BunkerdError =>
    fail("InvalidArgument", `invalid content resource id ${shown(digest)}: ${reason}`);
  if (!DIGEST.test(digest)) throw invalid("invalid checksum digest format");
  const colon = digest.indexOf(":");
  const length = DIGEST_LENGTHS.get(digest.slice(0, colon));
  if (length === undefined) throw invalid("unsupported digest algorithm");
  const sum = digest.slice(colon + 1);
  if (sum.length !== length) throw invalid("invalid checksum digest length");
  if (!/^[a-f0-9]+$/.test(sum)) throw invalid("invalid checksum digest format");
}

function shown(text: string): string {
  return text.length <= MAX_SHOWN_CHARACTERS ? text : `${text.slice(0, MAX_SHOWN_CHARACTERS)}...`;
}
