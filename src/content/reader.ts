import { closeSync, fstatSync, openSync, read, readv } from "node:fs";
import { promisify } from "node:util";
import { readCached } from "../linux/cached-read.ts";
import type { BlobReader } from "../model/content.ts";
import { fail } from "../model/errors.ts";
import { contentFailure } from "./faults.ts";

/** readv(2): IOV_MAX. */
const MAX_VECTOR = 1024;

const readAsync = promisify(read);
const readvAsync = promisify(readv);

/**
 * Opens a blob, at once: a client that reads a blob in many calls opens it in each, and a turn in another thread would take
 * longer than the call. @throws what open(2) and fstat(2) throw
 */
export function openReader(path: string, digest: string): BlobReader {
  const descriptor = openSync(path, "r");
  try {
    return new FileReader(descriptor, digest, fstatSync(descriptor).size);
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

class FileReader implements BlobReader {
  readonly #digest: string;
  readonly sizeBytes: number;
  readonly descriptor: number;
  #isOpen = true;
  /** Reads of other threads, which would read another file of the same number. */
  #reading = 0;

  constructor(descriptor: number, digest: string, sizeBytes: number) {
    this.descriptor = descriptor;
    this.#digest = digest;
    this.sizeBytes = sizeBytes;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.#readElsewhere(() => readAsync(this.descriptor, target, 0, target.length, position));
  }

  fill(targets: readonly Uint8Array[], position: number): Promise<void> | undefined {
    this.#requireOpen();
    const wanted = sizeOf(targets);
    if (readCached(this.descriptor, targets, position) === wanted) return undefined;
    return this.#fill(targets, position, wanted);
  }

  async #fill(targets: readonly Uint8Array[], position: number, wanted: number): Promise<void> {
    let rest = targets;
    for (let done = 0; done < wanted; ) {
      const vector = rest.slice(0, MAX_VECTOR);
      const count = await this.#readElsewhere(() => readvAsync(this.descriptor, vector, position + done));
      done += count;
      if (count === 0) throw fail("DataLoss", `blob ends at byte ${position + done} of ${this.sizeBytes}`);
      rest = behind(rest, count);
    }
  }

  /** @param read what another thread does */
  async #readElsewhere(read: () => Promise<{ readonly bytesRead: number }>): Promise<number> {
    this.#requireOpen();
    this.#reading += 1;
    try {
      return (await read()).bytesRead;
    } catch (error) {
      throw contentFailure(`read blob ${this.#digest}`, error);
    } finally {
      this.#reading -= 1;
      if (!this.#isOpen && this.#reading === 0) closeSync(this.descriptor);
    }
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#reading === 0) closeSync(this.descriptor);
  }

  /** The number may be another file's by now. */
  #requireOpen(): void {
    if (!this.#isOpen) throw fail("FailedPrecondition", `blob ${this.#digest} is closed`);
  }
}

function sizeOf(targets: readonly Uint8Array[]): number {
  return targets.reduce((size, { length }) => size + length, 0);
}

/** What is left of `targets` behind their first `bytes`. */
function behind(targets: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let left = bytes;
  for (const [index, target] of targets.entries()) {
    if (left < target.length) return [target.subarray(left), ...targets.slice(index + 1)];
    left -= target.length;
  }
  return [];
}
