/** A thread that applies and compares layers, one after another, with synchronous calls. An entry point of its own: see the Makefile. */
import { readSync } from "node:fs";
import { syncFileSystem } from "../linux/at.ts";
import { fail, isError } from "../model/errors.ts";
import { compareTrees } from "./changes.ts";
import { readLayer } from "./decompress.ts";
import { diffFailure } from "./faults.ts";
import { LayerWriter } from "./layer.ts";
import { type BlobFile, type CompareJob, Credit, type FromWorker, type ToWorker } from "./protocol.ts";
import { TarReader } from "./tar/reader.ts";

declare const self: Worker;

/**
 * Of a blob, read at a time. Several times what is decompressed at a time: at a piece's end the thread that decompresses sleeps until this one has a turn of
 * the loop, which is once its files are written.
 */
const PIECE_BYTES = 2 << 20;

/** Messages that came and were not asked for yet. */
const inbox: ToWorker[] = [];
let wake: (() => void) | undefined;

function send(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  self.postMessage(message, transfer);
}

async function receive(): Promise<ToWorker> {
  for (;;) {
    const message = inbox.shift();
    if (message !== undefined) return message;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}

async function* receivePieces(): AsyncGenerator<Buffer> {
  for (;;) {
    const message = await receive();
    if (message.kind === "end") return;
    if (message.kind !== "bytes") throw fail("Canceled", "apply layer");
    send({ kind: "taken" });
    yield Buffer.from(message.bytes.buffer, message.bytes.byteOffset, message.bytes.byteLength);
  }
}

async function* readPieces({ descriptor, sizeBytes, digest }: BlobFile): AsyncGenerator<Buffer> {
  for (let position = 0; position < sizeBytes; ) {
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, sizeBytes - position));
    const count = readSync(descriptor, piece, 0, piece.length, position);
    if (count === 0) throw fail("DataLoss", `blob ${digest} ends at byte ${position}`);
    position += count;
    yield piece.subarray(0, count);
    // A turn of the loop, in which word may come that nobody wants more.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function apply({ target, reading, file }: ToWorker & { kind: "apply" }): Promise<void> {
  const writer = new LayerWriter(target);
  try {
    const reader = new TarReader(writer);
    const hasher = new Bun.CryptoHasher("sha256");
    let sizeBytes = 0;
    const pieces = file === undefined ? receivePieces() : readPieces(file);
    for await (const chunk of readLayer(pieces, reading)) {
      if (inbox.some(({ kind }) => kind === "cancel")) throw fail("Canceled", "apply layer");
      hasher.update(chunk);
      sizeBytes += chunk.length;
      reader.push(chunk);
    }
    reader.finish();
    writer.finish();
    if (target.syncs) syncFileSystem(writer.rootDescriptor);
    send({ kind: "applied", digest: `sha256:${hasher.digest("hex")}`, sizeBytes });
  } finally {
    writer.close();
  }
}

function compare(job: CompareJob): void {
  const credits = new Int32Array(job.credits);
  compareTrees(job, (bytes) => {
    while (Atomics.load(credits, Credit.pieces) <= 0) Atomics.wait(credits, Credit.pieces, 0);
    if (Atomics.load(credits, Credit.cancelled) !== 0) throw fail("Canceled", "compare layers");
    Atomics.sub(credits, Credit.pieces, 1);
    const copy = new Uint8Array(bytes);
    send({ kind: "piece", bytes: copy }, [copy.buffer]);
  });
  send({ kind: "compared" });
}

async function work(job: ToWorker): Promise<void> {
  try {
    if (job.kind === "apply") await apply(job);
    else if (job.kind === "compare") compare(job.job);
  } catch (error) {
    const failure = diffFailure("diff", error);
    if (isError(error)) send({ kind: "failed", code: error.code, message: error.message });
    else if (isError(failure)) send({ kind: "failed", code: failure.code, message: failure.message });
    else {
      const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
      send({ kind: "failed", code: undefined, message });
    }
  }
}

self.onmessage = ({ data }: MessageEvent<ToWorker>): void => {
  inbox.push(data);
  wake?.();
};

async function serve(): Promise<void> {
  for (;;) await work(await receive());
}

void serve();
