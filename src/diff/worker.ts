/** A thread that applies or compares one layer with synchronous calls. An entry point of its own: see the Makefile. */
import { syncFileSystem } from "../linux/at.ts";
import { fail, isError } from "../model/errors.ts";
import { compareTrees } from "./changes.ts";
import { readLayer } from "./decompress.ts";
import { diffFailure } from "./faults.ts";
import { LayerWriter } from "./layer.ts";
import { type CompareJob, Credit, type FromWorker, type ToWorker } from "./protocol.ts";
import { TarReader } from "./tar/reader.ts";

declare const self: Worker;

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

async function apply({ target, reading, syncFs }: ToWorker & { kind: "apply" }): Promise<void> {
  const writer = new LayerWriter(target);
  try {
    const reader = new TarReader(writer);
    const hasher = new Bun.CryptoHasher("sha256");
    let sizeBytes = 0;
    for await (const chunk of readLayer(receivePieces(), reading)) {
      hasher.update(chunk);
      sizeBytes += chunk.length;
      reader.push(chunk);
    }
    reader.finish();
    writer.finish();
    if (syncFs) syncFileSystem(writer.rootDescriptor);
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

async function work(): Promise<void> {
  try {
    const job = await receive();
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

void work();
