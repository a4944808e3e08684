import { create } from "@bufbuild/protobuf";
import { type Descriptor, DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { BlobReader, ContentStore } from "../model/content.ts";
import { type ApplyOptions, LAYER_MEDIA_TYPE } from "../model/diff.ts";
import { type BunkerdError, fail, isError, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import type { LayerTarget } from "./layer.ts";
import { withMounts } from "./mounts.ts";
import { overlayLayers } from "./overlay-options.ts";
import { processingOf, type Step, type StreamProcessor } from "./processing.ts";
import type { FromWorker } from "./protocol.ts";
import type { Job, Workers } from "./workers.ts";

/** Pieces of the blob, and how many of them are on the way to the thread. */
const PIECE_BYTES = 256 << 10;
const PIECES_AHEAD = 4;

export interface ApplyDependencies {
  readonly content: ContentStore;
  readonly workers: Workers;
  readonly processors: readonly StreamProcessor[];
  /** True in a user namespace: no devices, no overlay marks. */
  readonly inUserNamespace: boolean;
}

/** See {@link Applier.apply}. */
export async function applyLayer(
  dependencies: ApplyDependencies,
  scope: Scope,
  layer: Descriptor,
  mounts: readonly Mount[],
  { syncFs = false, alone, payloads }: ApplyOptions,
): Promise<Descriptor> {
  const blob = await dependencies.content.open(scope, layer.digest).catch((error: unknown) => {
    throw within("failed to get reader from content store", error);
  });
  try {
    const { steps, reading } = processingOf(layer.mediaType, dependencies.processors);
    return await withTarget(dependencies, mounts, (target) =>
      dependencies.workers.run(async (job) => {
        const { descriptor, sizeBytes } = blob;
        const file =
          descriptor === undefined || steps.length > 0
            ? undefined
            : { descriptor, sizeBytes, digest: layer.digest };
        job.send({ kind: "apply", target: { ...target, alone, syncs: syncFs }, reading, file });
        const applied =
          file === undefined
            ? await feed(
                job,
                await processed(piecesOf(blob, layer.digest), steps, payloads),
                scope,
                layer.digest,
              )
            : await outcome(job, scope, layer.digest);
        const size = BigInt(applied.sizeBytes);
        return create(DescriptorSchema, { mediaType: LAYER_MEDIA_TYPE, digest: applied.digest, size });
      }),
    );
  } finally {
    await blob.close();
  }
}

/** An overlay's upper folder is written without mounting it, deletions as its marks; anything else through a mount. */
function withTarget<T>(
  { inUserNamespace }: ApplyDependencies,
  mounts: readonly Mount[],
  work: (target: Omit<LayerTarget, "syncs">) => Promise<T>,
): Promise<T> {
  const makesDevices = !inUserNamespace;
  const [first] = mounts;
  const isOverlay = mounts.length === 1 && first?.type === "overlay" && !inUserNamespace;
  const layers = isOverlay ? overlayLayers(first.options) : undefined;
  if (layers !== undefined) {
    const { upper, lowers } = layers;
    return work({ root: upper, lowers, whiteouts: "overlay", makesDevices });
  }
  return withMounts(mounts, "write", (root) => work({ root, lowers: [], whiteouts: "remove", makesDevices }));
}

async function* piecesOf(blob: BlobReader, digest: string): AsyncGenerator<Uint8Array> {
  for (let position = 0; position < blob.sizeBytes; ) {
    const bytes = new Uint8Array(Math.min(PIECE_BYTES, blob.sizeBytes - position));
    const count = await blob.read(bytes, position);
    if (count === 0) throw fail("DataLoss", `blob ${digest} ends at byte ${position}`);
    position += count;
    yield bytes.subarray(0, count);
  }
}

/** What comes out of the programs. */
async function processed(
  blob: AsyncGenerator<Uint8Array>,
  steps: readonly Step[],
  payloads: ApplyOptions["payloads"],
): Promise<AsyncGenerator<Uint8Array>> {
  let pieces = blob;
  for (const { processor, mediaType } of steps) {
    const { processStream } = await import("./processors.ts");
    pieces = processStream(processor, mediaType, pieces, payloads?.[processor.id]);
  }
  return pieces;
}

type Applied = FromWorker & { kind: "applied" };

function canceled(digest: string): BunkerdError {
  return fail("Canceled", `apply layer ${digest}`);
}

/** Of a thread that reads the blob itself. */
async function outcome(job: Job, { signal }: Scope, digest: string): Promise<Applied> {
  const stop = (): void => job.send({ kind: "cancel" });
  signal?.addEventListener("abort", stop, { once: true });
  try {
    for (;;) {
      if (signal?.aborted === true) throw canceled(digest);
      const message = await job.receive();
      if (message.kind === "applied") return message;
    }
  } catch (error) {
    throw signal?.aborted === true && isError(error, "Canceled") ? canceled(digest) : error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/** Sends the layer, some pieces ahead of what the thread has taken, until the thread answers. */
async function feed(
  job: Job,
  pieces: AsyncGenerator<Uint8Array>,
  { signal }: Scope,
  digest: string,
): Promise<Applied> {
  let isAll = false;
  let ahead = 0;
  try {
    for (;;) {
      if (signal?.aborted === true) throw canceled(digest);
      if (!isAll && ahead < PIECES_AHEAD) {
        const { value, done } = await pieces.next();
        isAll = done === true;
        if (isAll) job.send({ kind: "end" });
        else {
          // A copy, if it is of a stream's own buffer.
          const bytes =
            value.byteLength === value.buffer.byteLength || value.buffer.byteLength === PIECE_BYTES
              ? value
              : value.slice();
          ahead += 1;
          job.send({ kind: "bytes", bytes }, [bytes.buffer as ArrayBuffer]);
        }
        continue;
      }
      const message = await job.receive();
      if (message.kind === "applied") return message;
      if (message.kind === "taken") ahead -= 1;
    }
  } finally {
    await pieces.return(undefined);
  }
}
