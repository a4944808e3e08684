/** A thread that writes large ingests and computes their digests. An entry point of its own: see `build/compile.ts`. */
import { readSync, writeSync } from "node:fs";
import { beginWriteBack } from "../linux/write-back.ts";
import { CANONICAL_ALGORITHM } from "../model/digests.ts";
import { fail } from "../model/errors.ts";
import { Digester } from "./digester.ts";
import { contentFailure } from "./faults.ts";
import type { FromThread, ToThread } from "./ingest-thread.ts";

declare const self: Worker;

const READ_BYTES = 1 << 20;

/** Summed, then written while it is in the processor's cache: a part of what an L2 holds. Measured. */
const PIECE_BYTES = 256 << 10;

/** What is written before the kernel is asked to begin with the disk: a commit then waits for the last of it only. */
const WRITE_BACK_BYTES = 8 << 20;

interface Ingest {
  readonly digester: Digester;
  /** What failed: the file must not get what follows. */
  failure: unknown;
}

const ingests = new Map<number, Ingest>();

function answer(message: ToThread): FromThread {
  switch (message.kind) {
    case "begin": {
      const digester = new Digester(CANONICAL_ALGORITHM);
      ingests.set(message.id, { digester, failure: undefined });
      return { digest: digester.digest() };
    }
    case "write": {
      const { digester } = write(message.id, message.descriptor, message.position, message.data);
      return { digest: digester.digest() };
    }
    case "add file": {
      const { digester } = running(message.id);
      addFile(digester, message.descriptor, message.position, message.sizeBytes);
      return { digest: digester.digest() };
    }
    default:
      ingests.delete(message.id);
      return { digest: "" };
  }
}

/** @throws Internal if a thread before this one had it */
function running(id: number): Ingest {
  const ingest = ingests.get(id);
  if (ingest === undefined) throw fail("Internal", `digest ${id} has not begun`);
  return ingest;
}

function write(id: number, descriptor: number, position: number, data: Uint8Array): Ingest {
  const ingest = running(id);
  if (ingest.failure !== undefined) throw ingest.failure;
  try {
    for (let at = 0; at < data.length; at += PIECE_BYTES) {
      const piece = data.subarray(at, at + PIECE_BYTES);
      ingest.digester.update(piece);
      writeAll(descriptor, piece, position + at);
    }
  } catch (error) {
    ingest.failure = error;
    throw error;
  }
  const end = position + data.length;
  const due = end - (end % WRITE_BACK_BYTES);
  const from = position - (position % WRITE_BACK_BYTES);
  if (due > from) beginWriteBack(descriptor, from, due - from);
  return ingest;
}

/** write(2) may take less than it was given. */
function writeAll(descriptor: number, data: Uint8Array, position: number): void {
  for (let done = 0; done < data.length; )
    done += writeSync(descriptor, data, done, data.length - done, position + done);
}

/** @throws DataLoss if the file is shorter than it should be */
function addFile(digester: Digester, descriptor: number, from: number, sizeBytes: number): void {
  const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, sizeBytes));
  const end = from + sizeBytes;
  for (let position = from; position < end; ) {
    const count = readSync(descriptor, buffer, 0, Math.min(buffer.length, end - position), position);
    if (count === 0) throw fail("DataLoss", `ingest ends at byte ${position} of ${end}`);
    digester.update(buffer.subarray(0, count));
    position += count;
  }
}

self.onmessage = ({ data }: MessageEvent<ToThread>): void => {
  try {
    self.postMessage(answer(data));
  } catch (error) {
    const { code, message } = contentFailure(
      data.kind === "write" ? `at byte ${data.position}` : data.kind,
      error,
    );
    self.postMessage({ code, message } satisfies FromThread);
  }
};
