import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import type { Differ } from "../model/diff.ts";
import { fail, isError, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** Differs in the order of preference, and what the configuration says of them: containerd `plugins/services/diff/local.go`. */
export interface DiffService {
  readonly differs: readonly Differ[];
  /** Bring every layer to the disk before it is answered, asked or not. */
  readonly syncFs: boolean;
}

/** containerd.services.diff.v1.Diff. Source of rules: containerd `plugins/services/diff`. */
export function diffService({ diff }: { readonly diff: DiffService }): ServiceBinding<typeof Diff> {
  /** The first differ that can. */
  const firstOf = async <T>(work: (differ: Differ) => Promise<T>): Promise<T> => {
    let refusal: unknown = fail("Unimplemented", "no differ");
    for (const differ of diff.differs) {
      try {
        return await work(differ);
      } catch (error) {
        if (!isError(error, "Unimplemented")) throw error;
        refusal = error;
      }
    }
    throw refusal;
  };
  return bind(Diff, {
    async apply({ diff: layer = create(DescriptorSchema), mounts, payloads, syncFs }, context) {
      const scope = readingScope(context);
      const options = { payloads, syncFs: syncFs || diff.syncFs };
      return { applied: await firstOf((differ) => differ.apply(scope, layer, mounts, options)) };
    },
    async diff({ left, right, mediaType, ref, labels, sourceDateEpoch }, context) {
      const scope = scopeOf(context);
      const options = { mediaType, ref, labels, sourceDateEpoch };
      return { diff: await firstOf((differ) => differ.compare(scope, left, right, options)) };
    },
  });
}

/** containerd asks for the namespace when it opens the blob, and its error says so. */
function readingScope(context: HandlerContext): Scope {
  try {
    return scopeOf(context);
  } catch (error) {
    throw within("failed to get reader from content store", error);
  }
}
