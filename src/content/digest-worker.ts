/** A thread that computes digests of what ingests are written with. An entry point of its own: see `build/compile.ts`. */
import { readSync } from "node:fs";
import { beginWriteBack } from "../linux/write-back.ts";
import { CANONICAL_ALGORITHM } from "../model/digests.ts";
import { fail } from "../model/errors.ts";
import type { FromThread, ToThread } from "./digest-thread.ts";
import { Digester } from "./digester.ts";
import { contentFailure } from "./faults.ts";

declare const self: Worker;

const READ_BYTES = 1 << 20;

const digesters = new Map<number, Digester>();

function answer(message: ToThread): FromThread {
  switch (message.kind) {
    case "begin": {
      const digester = new Digester(CANONICAL_ALGORITHM);
      digesters.set(message.id, digester);
      return { digest: digester.digest() };
    }
    case "add": {
      const digester = running(message.id);
      digester.update(message.data);
      return { digest: digester.digest() };
    }
    case "add file": {
      const digester = running(message.id);
      addFile(digester, message.descriptor, message.position, message.sizeBytes);
      return { digest: digester.digest() };
    }
    case "write back":
      beginWriteBack(message.descriptor, message.position, message.sizeBytes);
      return { digest: "" };
    default:
      digesters.delete(message.id);
      return { digest: "" };
  }
}

/** @throws Internal if a thread before this one had it */
function running(id: number): Digester {
  const digester = digesters.get(id);
  if (digester === undefined) throw fail("Internal", `digest ${id} has not begun`);
  return digester;
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
    const { code, message } = contentFailure("compute digest", error);
    self.postMessage({ code, message } satisfies FromThread);
  }
};
