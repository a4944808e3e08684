import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import {
  Content,
  InfoSchema,
  type ReadContentRequest,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import type { BlobReader, ContentStore } from "../model/content.ts";
import { digestFault } from "../model/digests.ts";
import { BunkerdError, quote, within } from "../model/errors.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { readEncoded, readFields } from "./content-read.ts";
import { WRITES_AHEAD, writeContent } from "./content-write.ts";
import { scopeOf } from "./scope.ts";

/** Infos in one message of List: containerd's. */
const LIST_BLOCK = 100;

/** containerd.services.content.v1.Content. Source of rules and wording: containerd `plugins/services/content/contentserver`. */
export function contentService(dependencies: {
  readonly content: ContentStore;
}): ServiceBinding<typeof Content> {
  const { content } = dependencies;
  const open = ({ digest }: ReadContentRequest, context: HandlerContext): Promise<BlobReader> => {
    const fault = digestFault(digest);
    requireDigest(digest, `${digest}: ${fault}`);
    return content.open(scopeOf(context), digest);
  };
  return bind(
    Content,
    {
      async info({ digest }, context) {
        requireDigest(digest, `${quote(digest)} failed validation`);
        return { info: await content.info(scopeOf(context), digest) };
      },
      async update({ info = create(InfoSchema), updateMask }, context) {
        requireDigest(info.digest, `${quote(info.digest)} failed validation`);
        return { info: await content.update(scopeOf(context), info, updateMask?.paths) };
      },
      async *list({ filters }, context) {
        const infos = await content.list(scopeOf(context), filters);
        for (let at = 0; at < infos.length; at += LIST_BLOCK)
          yield { info: infos.slice(at, at + LIST_BLOCK) };
      },
      async delete({ digest }, context) {
        requireDigest(digest, digestFault(digest) ?? "");
        await content.delete(scopeOf(context), digest);
        return {};
      },
      async *read(request, context) {
        yield* readFields(await open(request, context), request);
      },
      async status({ ref }, context) {
        const scope = scopeOf(context);
        try {
          return { status: await content.status(scope, ref) };
        } catch (error) {
          throw within(`could not get status for ref ${quote(ref)}`, error);
        }
      },
      async listStatuses({ filters }, context) {
        return { statuses: await content.listStatuses(scopeOf(context), filters) };
      },
      write: (requests, context) => writeContent(content, () => scopeOf(context), requests),
      async abort({ ref }, context) {
        await content.abort(scopeOf(context), ref);
        return {};
      },
    },
    {
      async *read(request, context) {
        yield* readEncoded(await open(request, context), request);
      },
    },
    undefined,
    { write: WRITES_AHEAD - 1 },
  );
}

/** @throws InvalidArgument with that message, which does not end in the words of its class */
function requireDigest(digest: string, message: string): void {
  if (digestFault(digest) !== undefined) throw new BunkerdError("InvalidArgument", message);
}
