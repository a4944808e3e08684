/**
 * What may be behind a `[proxy_plugins]` of type content: blobs and ingests without namespaces and labels, as containerd's
 * `plugins/content/local` has them, served by the Content service. Each call is noted.
 */
import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import {
  Content,
  InfoSchema,
  type Status,
  StatusSchema,
  WriteAction,
  type WriteContentRequest,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { openBlobs } from "../../src/content/blobs.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { timestampOf } from "../../src/metadata/fields.ts";
import type { BlobStore, ContentStore, ContentWriter, IngestStatus } from "../../src/model/content.ts";
import { fail } from "../../src/model/errors.ts";
import { readFields } from "../../src/services/content-read.ts";
import { writeContent } from "../../src/services/content-write.ts";
import { Listener } from "../../src/transport/listener.ts";
import { bind, type ServiceBinding } from "../../src/transport/registry.ts";

/** What came over the wire; of Write only what does not carry bytes. */
export interface Call {
  readonly method: string;
  readonly namespace: string | null;
  readonly lease: string | null;
  /** The digest or ref that was asked for. */
  readonly subject: string;
}

export interface PlainContent {
  readonly calls: Call[];
  /** The digests that are there. */
  digests(): Promise<string[]>;
  close(): Promise<void>;
}

const SCOPE = { namespace: "none" };

/** Serves what is in `root` on a socket until it is closed. */
export async function servePlainContent(path: string, root: string): Promise<PlainContent> {
  const calls: Call[] = [];
  const blobs = openBlobs({ root, clock: systemClock(), logger: silentLogger });
  const note = (method: string, { requestHeader }: HandlerContext, subject = ""): void => {
    const [namespace, lease] = ["containerd-namespace", "containerd-lease"].map((name) =>
      requestHeader.get(name),
    );
    calls.push({ method, namespace: namespace ?? null, lease: lease ?? null, subject });
  };
  const listener = new Listener(
    { path },
    { bindings: [bindingOf(blobs, note) as unknown as ServiceBinding], logger: silentLogger },
  );
  await listener.start();
  return { calls, digests: async () => [...(await blobs.list())].sort(), close: () => listener.close(0) };
}

type Note = (method: string, context: HandlerContext, subject?: string) => void;

function bindingOf(blobs: BlobStore, note: Note): ServiceBinding<typeof Content> {
  const store = storeOf(blobs);
  /** Refs are hashed on disk. */
  const refs = new Set<string>();
  return bind(Content, {
    async info({ digest }, context) {
      note("Info", context, digest);
      return { info: infoOf(blobs, digest) };
    },
    async *list(_request, context) {
      note("List", context);
      yield { info: [...(await blobs.list())].map((digest) => infoOf(blobs, digest)) };
    },
    async delete({ digest }, context) {
      note("Delete", context, digest);
      infoOf(blobs, digest);
      const removal = blobs.beginRemoval(digest, new Set());
      if (typeof removal === "object") await removal.finish();
      return {};
    },
    async *read(request, context) {
      note("Read", context, request.digest);
      yield* readFields(await blobs.open(SCOPE, request.digest), request);
    },
    async status({ ref }, context) {
      note("Status", context, ref);
      return { status: statusOf(await blobs.ingestStatus(ref)) };
    },
    async listStatuses(_request, context) {
      note("ListStatuses", context);
      const found = [...refs].map((ref) => blobs.ingestStatus(ref).catch(() => undefined));
      return { statuses: (await Promise.all(found)).flatMap((each) => (each ? [statusOf(each)] : [])) };
    },
    async *write(requests, context) {
      const noted = async function* (): AsyncGenerator<WriteContentRequest> {
        for await (const request of requests) {
          if (request.ref !== "") refs.add(request.ref);
          if (request.action !== WriteAction.WRITE) {
            const { action, ref, expected, total, labels } = request;
            const about = { ref, expected, total: Number(total), labels };
            note(
              action === WriteAction.COMMIT ? "Write COMMIT" : "Write STAT",
              context,
              JSON.stringify(about),
            );
          }
          yield request;
        }
      };
      yield* writeContent(store, () => SCOPE, noted());
    },
    async abort({ ref }, context) {
      note("Abort", context, ref);
      await blobs.removeIngest(ref);
      return {};
    },
  });
}

function infoOf(blobs: BlobStore, digest: string) {
  const size = blobs.sizeOf(digest);
  if (size === undefined) throw fail("NotFound", `content ${digest}`);
  return create(InfoSchema, { digest, size: BigInt(size) });
}

function statusOf({ ref, offsetBytes, totalBytes, startedAt, updatedAt }: IngestStatus): Status {
  const times = { startedAt: timestampOf(startedAt), updatedAt: timestampOf(updatedAt) };
  return create(StatusSchema, { ref, offset: BigInt(offsetBytes), total: totalBytes, ...times });
}

/** What a session of Write needs. */
function storeOf(blobs: BlobStore): ContentStore {
  const store: Pick<ContentStore, "info" | "writer" | "abort"> = {
    info: async (_scope, digest) => infoOf(blobs, digest),
    async writer(_scope, { ref, totalBytes = 0n, expected = "" }): Promise<ContentWriter> {
      if (blobs.sizeOf(expected) !== undefined) throw fail("AlreadyExists", `content ${expected}`);
      const writer = await blobs.openIngest(blobs.lockIngest(ref), totalBytes);
      return {
        status: () => statusOf(writer.status()),
        digest: () => writer.digest(),
        write: (data) => writer.write(data),
        truncate: () => writer.truncate(),
        commit: ({ sizeBytes = 0n, expected: digest = "" }) => writer.commit(sizeBytes, digest),
        close: () => writer.close(),
      };
    },
    abort: (_scope, ref) => blobs.removeIngest(ref),
  };
  return store as ContentStore;
}
