import { randomBytes } from "node:crypto";
import { PassThrough, type Transform } from "node:stream";
import { createGzip, createZstdCompress } from "node:zlib";
import { create } from "@bufbuild/protobuf";
import { type Descriptor, DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { ContentStore } from "../model/content.ts";
import { type CompareOptions, LABEL_UNCOMPRESSED, LAYER_MEDIA_TYPE } from "../model/diff.ts";
import { fail, isError, unquoted, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { type Compression, layerCompression } from "./media-types.ts";
import { withMounts } from "./mounts.ts";
import { changesFolder } from "./overlay-changes.ts";
import { Credit, PIECE_CREDITS } from "./protocol.ts";
import type { Job, Workers } from "./workers.ts";

export interface CompareDependencies {
  readonly content: ContentStore;
  readonly workers: Workers;
}

/** See {@link Comparer.compare}; containerd `plugins/diff/walking`. */
export async function compareMounts(
  dependencies: CompareDependencies,
  scope: Scope,
  lower: readonly Mount[],
  upper: readonly Mount[],
  options: CompareOptions,
): Promise<Descriptor> {
  const mediaType = options.mediaType || `${LAYER_MEDIA_TYPE}+gzip`;
  const compression = layerCompression(mediaType);
  if (compression === undefined)
    throw fail("Unimplemented", `unsupported diff media type: ${unquoted(mediaType)}`);
  return withMounts(lower, "write", (lowerRoot) =>
    withMounts(upper, "read", async (upperRoot) => {
      const roots = { lower: lowerRoot, upper: upperRoot, changes: changesFolder(lower, upper) };
      const { digest, size } = await store(dependencies, scope, roots, {
        ...options,
        mediaType,
        compression,
      });
      return create(DescriptorSchema, { mediaType, digest, size });
    }),
  );
}

/** Takes the pieces of an archive, one after the other. */
export interface ArchiveSink {
  write(bytes: Uint8Array): Promise<unknown>;
}

export interface Changes {
  /** None: all of `upper`. */
  readonly lower: readonly Mount[];
  readonly upper: readonly Mount[];
  readonly compression: Compression;
}

/** Writes the layer that {@link compareMounts} would store to `sink`. @throws Canceled, what the sink throws */
export async function writeChanges(
  workers: Workers,
  { lower, upper, compression }: Changes,
  sink: ArchiveSink,
  signal: AbortSignal,
): Promise<void> {
  await withMounts(lower, "write", (lowerRoot) =>
    withMounts(upper, "read", async (upperRoot) => {
      const roots = { lower: lowerRoot, upper: upperRoot, changes: changesFolder(lower, upper) };
      await writeLayer(workers, roots, { compression, signal }, sink);
    }),
  );
}

interface Making extends CompareOptions {
  readonly mediaType: string;
  readonly compression: Compression;
}

interface Roots {
  readonly lower: string;
  readonly upper: string;
  readonly changes: string | undefined;
}

async function store(
  dependencies: CompareDependencies,
  scope: Scope,
  roots: Roots,
  making: Making,
): Promise<{ digest: string; size: bigint }> {
  const { content } = dependencies;
  const ref = making.ref || `${process.hrtime.bigint()}-${randomBytes(3).toString("base64url")}`;
  const isOwnRef = !making.ref;
  const writer = await content.writer(scope, { ref, mediaType: making.mediaType }).catch((error: unknown) => {
    throw within("failed to open writer", error);
  });
  try {
    if (!isOwnRef) await writer.truncate();
    const { compression, sourceDateEpoch } = making;
    const writing = { compression, sourceDateEpoch, signal: scope.signal };
    const uncompressed = await writeLayer(dependencies.workers, roots, writing, writer);
    const labels: Record<string, string> = { ...making.labels };
    if (making.compression !== "none") labels[LABEL_UNCOMPRESSED] = uncompressed;
    const digest = writer.digest();
    await writer.commit({ expected: digest, labels }).catch((error: unknown) => {
      if (!isError(error, "AlreadyExists")) throw within("failed to commit", error);
    });
    const info = await content.info(scope, digest);
    if (labels[LABEL_UNCOMPRESSED] !== undefined && !(LABEL_UNCOMPRESSED in info.labels)) {
      info.labels[LABEL_UNCOMPRESSED] = uncompressed;
      await content.update(scope, info, [`labels.${LABEL_UNCOMPRESSED}`]);
    }
    return { digest, size: info.size };
  } catch (error) {
    await writer.close();
    // An ingest under the caller's name stays to be looked at; ours would never be found again.
    if (isOwnRef) {
      await content.abort(scope, ref).catch((failure: unknown) => {
        if (!isError(failure, "NotFound")) throw failure;
      });
    }
    throw error;
  }
}

interface Writing extends Pick<CompareOptions, "sourceDateEpoch"> {
  readonly compression: Compression;
  readonly signal: AbortSignal | undefined;
}

/** Writes the layer and answers the digest that it has uncompressed. */
async function writeLayer(
  workers: Workers,
  roots: Roots,
  { compression, sourceDateEpoch, signal }: Writing,
  sink: ArchiveSink,
): Promise<string> {
  const latestSeconds = sourceDateEpoch === undefined ? undefined : Number(sourceDateEpoch.seconds);
  const hasher = new Bun.CryptoHasher("sha256");
  await workers.run(async (job) => {
    const credits = new SharedArrayBuffer(8);
    const counters = new Int32Array(credits);
    counters[Credit.pieces] = PIECE_CREDITS;
    job.send({ kind: "compare", job: { ...roots, latestSeconds, credits } });
    const stream = compressor(compression);
    const written = drain(stream, sink);
    try {
      await receivePieces(job, counters, signal, async (bytes) => {
        hasher.update(bytes);
        if (!stream.write(bytes)) await writable(stream, written);
      });
      stream.end();
      await written;
    } catch (error) {
      stream.destroy();
      await written.catch(() => undefined);
      throw error;
    } finally {
      // A thread that waits for room sees that nobody wants more.
      Atomics.store(counters, Credit.cancelled, 1);
      Atomics.add(counters, Credit.pieces, PIECE_CREDITS);
      Atomics.notify(counters, Credit.pieces);
    }
  });
  return `sha256:${hasher.digest("hex")}`;
}

async function receivePieces(
  job: Job,
  counters: Int32Array,
  signal: AbortSignal | undefined,
  take: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  for (;;) {
    const message = await job.receive();
    if (signal?.aborted === true) throw fail("Canceled", "compare layers");
    if (message.kind === "compared") return;
    if (message.kind !== "piece") continue;
    await take(message.bytes);
    Atomics.add(counters, Credit.pieces, 1);
    Atomics.notify(counters, Credit.pieces);
  }
}

function compressor(compression: Compression): Transform {
  if (compression === "gzip") return createGzip();
  return compression === "zstd" ? createZstdCompress() : new PassThrough();
}

async function drain(stream: Transform, sink: ArchiveSink): Promise<void> {
  for await (const chunk of stream) await sink.write(chunk as Buffer);
}

/** Resolves when the stream takes more; rejects when what reads it has failed. */
async function writable(stream: Transform, written: Promise<void>): Promise<void> {
  const drained = new Promise<void>((resolve) => stream.once("drain", resolve));
  await Promise.race([drained, written]);
}
