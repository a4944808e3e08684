import { chmod, type FileHandle, mkdir, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import type { BlobWriter, IngestLock, IngestStatus } from "../model/content.ts";
import { algorithmOf } from "../model/digests.ts";
import { type BunkerdError, fail, isError, messageOf, quote, within } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";
import { Digester, digestFile } from "./digester.ts";
import { syncDirectory } from "./directories.ts";
import { contentFailure } from "./faults.ts";
import { type IngestThreads, ThreadDigester } from "./ingest-thread.ts";
import { type IngestPaths, writeUpdatedAt } from "./ingests.ts";

/** An ingest of so many bytes is large: a thread has it from there on, and the disk is told early. */
export const LARGE_BYTES = 4 << 20;

export interface IngestWriterOptions {
  readonly lock: IngestLock;
  readonly paths: IngestPaths;
  readonly file: FileHandle;
  readonly digester: Digester | ThreadDigester;
  readonly threads: IngestThreads;
  readonly status: IngestStatus;
  readonly clock: Clock;
  /** Where a blob belongs. */
  readonly blobPath: (digest: string) => string;
  /** Waits for the blob's removal, if it is going, and keeps it from being removed until what it answers is called. */
  readonly claim: (digest: string) => Promise<() => void>;
}

/** An open ingest (containerd `plugins/content/local/writer.go`). */
export class IngestWriter implements BlobWriter {
  readonly #options: IngestWriterOptions;
  #file: FileHandle | undefined;
  #digester: Digester | ThreadDigester;
  #offsetBytes: number;
  /** Where the next write belongs: beyond `#offsetBytes` while some are under way. */
  #nextBytes: number;
  /** The thread's last write: until it has settled the thread uses the file. */
  #underWay: Promise<string> | undefined;
  #updatedAt: bigint;
  #unclaim: (() => void) | undefined;

  constructor(options: IngestWriterOptions) {
    this.#options = options;
    this.#file = options.file;
    this.#digester = options.digester;
    this.#offsetBytes = options.status.offsetBytes;
    this.#nextBytes = options.status.offsetBytes;
    this.#updatedAt = options.status.updatedAt;
  }

  status(): IngestStatus {
    return { ...this.#options.status, offsetBytes: this.#offsetBytes, updatedAt: this.#updatedAt };
  }

  digest(): string {
    return this.#digester.digest();
  }

  get overlaps(): boolean {
    return this.#digester instanceof ThreadDigester;
  }

  async write(data: Uint8Array): Promise<string> {
    const file = this.#open("write to");
    const position = this.#nextBytes;
    this.#nextBytes += data.length;
    let digest: string;
    try {
      // At once if there is a thread: another call may follow before this one has ended.
      const thread =
        this.#digester instanceof ThreadDigester ? this.#digester : await this.#takeThread(file, data);
      digest = await (thread === undefined
        ? this.#writeHere(file, data, position)
        : this.#writeThere(thread, file, data, position));
    } catch (error) {
      throw await this.#abandon("write", error);
    }
    this.#offsetBytes += data.length;
    this.#updatedAt = this.#options.clock.now();
    return digest;
  }

  /** The thread can take the memory of messages without copying it. Undefined as long as it is not worth it. */
  async #takeThread(file: FileHandle, data: Uint8Array): Promise<ThreadDigester | undefined> {
    const isShared = data.buffer instanceof SharedArrayBuffer;
    if (!isShared || this.#offsetBytes < LARGE_BYTES || this.#digester instanceof ThreadDigester)
      return undefined;
    const thread = await this.#options.threads.begin(file.fd, this.#offsetBytes);
    this.#digester = thread;
    return thread;
  }

  async #writeHere(file: FileHandle, data: Uint8Array, position: number): Promise<string> {
    const digester = this.#digester;
    // The sum is computed while the kernel copies.
    const written = writeAll(file, data, position);
    if (digester instanceof Digester) digester.update(data);
    await written;
    return digester.digest();
  }

  async #writeThere(
    thread: ThreadDigester,
    file: FileHandle,
    data: Uint8Array,
    position: number,
  ): Promise<string> {
    const written = thread.write(file.fd, position, data);
    this.#underWay = written;
    try {
      return await written;
    } catch (error) {
      throw within(`write ingest ${quote(this.#options.lock.ref)}`, error);
    }
  }

  async truncate(): Promise<void> {
    const file = this.#open("truncate");
    try {
      await file.truncate(0);
    } catch (error) {
      throw await this.#abandon("truncate", error);
    }
    this.#offsetBytes = 0;
    this.#nextBytes = 0;
    this.#setDigester(new Digester(this.#digester.algorithm));
  }

  async commit(sizeBytes: bigint, expected: string): Promise<void> {
    const file = this.#open("commit");
    try {
      await this.#verify(file, sizeBytes, expected);
      await file.datasync();
      await this.#release();
    } catch (error) {
      throw await this.#abandon("commit", error);
    }
    try {
      await this.#publish();
    } catch (error) {
      throw this.#failure("commit", error);
    } finally {
      this.#options.lock.release();
    }
  }

  async close(): Promise<void> {
    this.#unclaim?.();
    if (this.#file === undefined) return;
    try {
      await this.#release();
      await writeUpdatedAt(this.#options.paths, this.#updatedAt).catch(ignoreGone);
    } catch (error) {
      throw this.#failure("close", error);
    } finally {
      this.#options.lock.release();
    }
  }

  /** @throws FailedPrecondition unless what is in the file is what was promised */
  async #verify(file: FileHandle, sizeBytes: bigint, expected: string): Promise<void> {
    const { size } = await file.stat({ bigint: true });
    if (sizeBytes > 0n && sizeBytes !== size) {
      throw fail("FailedPrecondition", `unexpected commit size ${size}, expected ${sizeBytes}`);
    }
    const wanted = algorithmOf(expected);
    if (wanted !== undefined && wanted !== this.#digester.algorithm) {
      const digester = new Digester(wanted);
      await digestFile(this.#options.paths.data, digester);
      this.#setDigester(digester);
    }
    const digest = this.digest();
    if (expected !== "" && expected !== digest) {
      throw fail("FailedPrecondition", `unexpected commit digest ${digest}, expected ${expected}`);
    }
  }

  /** Gives the synced file its name. Once the name is durable the rest is tidying, whose failure loses nothing. */
  async #publish(): Promise<void> {
    const { paths, blobPath } = this.#options;
    const digest = this.digest();
    const target = blobPath(digest);
    this.#unclaim = await this.#options.claim(digest);
    await makeBlobDirectory(dirname(target));
    if (await exists(target)) {
      await rm(paths.folder, { recursive: true, force: true });
      throw fail("AlreadyExists", `content ${digest}`);
    }
    failpoint("content.beforeRename");
    await chmod(paths.data, 0o444);
    const now = new Date(Number(this.#options.clock.now() / 1_000_000n));
    await utimes(paths.data, now, now);
    await rename(paths.data, target);
    await syncDirectory(dirname(target));
    failpoint("content.afterRename");
    await rm(paths.folder, { recursive: true, force: true }).catch(ignoreLeftover);
  }

  #open(operation: string): FileHandle {
    if (this.#file === undefined) throw fail("FailedPrecondition", `cannot ${operation} closed writer`);
    return this.#file;
  }

  #setDigester(digester: Digester): void {
    if (this.#digester instanceof ThreadDigester) this.#digester.close();
    this.#digester = digester;
  }

  /** Closes the file; the lock stays. */
  async #release(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await this.#underWay?.catch(ignoreLeftover);
    if (this.#digester instanceof ThreadDigester) this.#digester.close();
    await file?.close();
  }

  /** Closes after a failure, and answers what to throw. The failure of the closing would hide the first one. */
  async #abandon(operation: string, error: unknown): Promise<BunkerdError> {
    await this.#release().catch(ignoreLeftover);
    this.#options.lock.release();
    return this.#failure(operation, error);
  }

  #failure(operation: string, error: unknown): BunkerdError {
    if (isError(error)) return error;
    const { ref } = this.#options.lock;
    if (errnoOf(error) === "ENOENT") {
      return fail("Aborted", `${operation} ingest ${quote(ref)}: removed meanwhile: ${messageOf(error)}`);
    }
    return contentFailure(`${operation} ingest ${quote(ref)}`, error);
  }
}

/** write(2) may take less than it was given. */
async function writeAll(file: FileHandle, data: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await file.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** A folder that is new must itself survive. */
async function makeBlobDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o755 });
  for (let made = first === undefined ? undefined : path; made !== undefined; ) {
    await syncDirectory(dirname(made));
    made = made === first ? undefined : dirname(made);
  }
}

/** The ingest was aborted under its writer: there is nothing to note the time in. */
function ignoreGone(error: unknown): void {
  if (errnoOf(error) !== "ENOENT") throw error;
}

/** What stays behind is removed by the next start. */
function ignoreLeftover(): void {
  // nothing to do
}
