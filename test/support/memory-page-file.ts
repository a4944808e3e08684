/** A file in memory under a database, which knows what a power cut would leave of it and can be made to fail. */
import type { PageFile } from "../../src/bolt/page-file.ts";

/** What was done to the file, in order. */
export type FileOperation =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "resize"; readonly size: number }
  | { readonly kind: "sync" };

/** Says which errno an operation fails with; undefined lets it through. */
export type Fault = (operation: FileOperation["kind"]) => string | undefined;

export class MemoryPageFile implements PageFile {
  readonly path: string;
  readonly operations: FileOperation[] = [];
  /** Operations that no successful sync has covered, as a disk with a volatile cache holds them. */
  unsynced: FileOperation[] = [];
  /** What the medium surely holds. */
  durable: Uint8Array;
  fault: Fault = () => undefined;
  /** Called with the unsynced operations when a sync fails: returns those that reached the medium all the same. */
  survivors: (operations: readonly FileOperation[]) => readonly FileOperation[] = () => [];
  #content: Uint8Array;

  constructor(content: Uint8Array = new Uint8Array(0), path = "/memory/test.db") {
    this.path = path;
    this.#content = content.slice();
    this.durable = content.slice();
  }

  get content(): Uint8Array {
    return this.#content.slice();
  }

  /** Changes bytes behind the database's back. */
  damage(position: number, bytes: Uint8Array): void {
    this.#content.set(bytes, position);
  }

  read(buffer: Uint8Array, position: number): number {
    const found = this.#content.subarray(position, position + buffer.length);
    buffer.set(found);
    return found.length;
  }

  write(buffers: readonly Uint8Array[], position: number): void {
    this.#fail("write");
    this.#do({ kind: "write", position, bytes: Uint8Array.from(Buffer.concat(buffers)) });
  }

  async writeAsync(buffers: readonly Uint8Array[], position: number): Promise<void> {
    await Promise.resolve();
    this.write(buffers, position);
  }

  async sync(): Promise<void> {
    await Promise.resolve();
    this.syncNow();
  }

  syncNow(): void {
    this.operations.push({ kind: "sync" });
    const dirty = this.unsynced;
    // As Linux does: a failed fsync forgets what was dirty, whether it reached the medium or not.
    this.unsynced = [];
    const errno = this.fault("sync");
    this.durable = applyAll(this.durable, errno === undefined ? dirty : this.survivors(dirty));
    if (errno !== undefined) throw Object.assign(new Error(`${errno}: injected`), { code: errno });
  }

  size(): number {
    return this.#content.length;
  }

  async resize(size: number): Promise<void> {
    this.#fail("resize");
    this.#do({ kind: "resize", size });
    await this.sync();
  }

  close(): void {
    // nothing to let go of
  }

  #fail(kind: FileOperation["kind"]): void {
    const errno = this.fault(kind);
    if (errno !== undefined) throw Object.assign(new Error(`${errno}: injected`), { code: errno });
  }

  #do(operation: FileOperation): void {
    this.operations.push(operation);
    this.unsynced.push(operation);
    this.#content = applyAll(this.#content, [operation]);
  }
}

/** The content after `operations`. */
export function applyAll(content: Uint8Array, operations: readonly FileOperation[]): Uint8Array {
  let size = content.length;
  for (const operation of operations) {
    if (operation.kind === "write") size = Math.max(size, operation.position + operation.bytes.length);
    else if (operation.kind === "resize") size = Math.max(size, operation.size);
  }
  const result = new Uint8Array(size);
  result.set(content);
  for (const operation of operations)
    if (operation.kind === "write") result.set(operation.bytes, operation.position);
  return result;
}
