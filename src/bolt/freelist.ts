/**
 * Which pages may be written (reference: bbolt internal/freelist). Free pages are a bitmap; pages that a commit freed wait, with the
 * id of that commit, until no reader can see them.
 *
 * A page written by commit A and freed by commit T is seen by the readers of transactions A to T-1, and by no other.
 */
import { FREELIST_FLAG, PAGE_HEADER_SIZE, setWordPair, wordPair, writePageHeader } from "./page.ts";

/** `count` pages from `id` on. */
export interface PageRun {
  readonly id: number;
  readonly count: number;
}

interface PendingRun extends PageRun {
  /** Commit that wrote the run, 0 if it is not known: then every reader older than the freeing commit counts. */
  readonly writtenBy: number;
}

/** The count field is a u16; from here on it reads 0xffff and the first id is the count. */
const COUNT_OVERFLOW = 0xffff;
const ID_SIZE = 8;

export class Freelist {
  #bits: Uint32Array;
  #freeCount = 0;
  /** No page below is free. */
  #lowest = 0;
  readonly #pending = new Map<number, PendingRun[]>();
  #pendingCount = 0;
  /** Kept only while readers are open: others cannot tell. */
  readonly #writtenBy = new Map<number, number>();
  #allocated: PageRun[] = [];
  #txid = 0;
  #recordWriters = false;
  #damage: string | undefined;

  /** `damage`: what is in use cannot be known, so that nothing is ever reused. */
  constructor(freeIds: Iterable<number>, damage?: string) {
    this.#bits = new Uint32Array(64);
    this.#lowest = 0;
    this.#damage = damage;
    for (const id of freeIds) this.#set(id);
  }

  /** Why nothing is reused any more: a page was free and in use at once. The file only grows then, and no sound page is overwritten. */
  get damage(): string | undefined {
    return this.#damage;
  }

  #freeze(damage: string): void {
    this.#damage ??= damage;
    this.#bits.fill(0);
    this.#freeCount = 0;
    this.#pending.clear();
    this.#pendingCount = 0;
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  get pendingCount(): number {
    return this.#pendingCount;
  }

  has(id: number): boolean {
    return ((this.#bits[id >>> 5] ?? 0) & (1 << (id & 31))) !== 0;
  }

  /** Starts commit `txid`: what none of `readers` (txids of open readers) sees becomes free. */
  begin(txid: number, readers: readonly number[]): void {
    this.#txid = txid;
    this.#allocated = [];
    this.#recordWriters = readers.length > 0;
    if (!this.#recordWriters) this.#writtenBy.clear();
    for (const [freedBy, runs] of this.#pending) {
      const kept: PendingRun[] = [];
      for (const run of runs) {
        if (readers.some((reader) => reader >= run.writtenBy && reader < freedBy)) kept.push(run);
        else this.#release(run);
      }
      if (this.#damage !== undefined) return;
      if (kept.length === 0) this.#pending.delete(freedBy);
      else this.#pending.set(freedBy, kept);
    }
  }

  #release(run: PageRun): void {
    this.#pendingCount -= run.count;
    for (let id = run.id; id < run.id + run.count; id++) this.#set(id);
  }

  /** The lowest `count` adjoining free pages, or undefined when the file must grow. */
  allocate(count: number): number | undefined {
    if (this.#freeCount < count) return undefined;
    const id = count === 1 ? this.#nextFree(this.#lowest) : this.#findRun(count);
    if (id === undefined) return undefined;
    for (let page = id; page < id + count; page++) this.#clear(page);
    if (count === 1) this.#lowest = id + 1;
    this.noteWritten(id);
    this.#allocated.push({ id, count });
    return id;
  }

  /** Tells of a run that the commit writes; those from the end of the file are the caller's to tell. */
  noteWritten(id: number): void {
    if (this.#recordWriters) this.#writtenBy.set(id, this.#txid);
  }

  #nextFree(from: number): number | undefined {
    let word = from >>> 5;
    let bits = (this.#bits[word] ?? 0) & (-1 << (from & 31));
    while (bits === 0) {
      if (++word >= this.#bits.length) return undefined;
      bits = this.#bits[word] ?? 0;
    }
    return word * 32 + (31 - Math.clz32(bits & -bits));
  }

  #findRun(count: number): number | undefined {
    let start = this.#nextFree(this.#lowest);
    while (start !== undefined) {
      let end = start + 1;
      while (end - start < count && this.has(end)) end++;
      if (end - start === count) return start;
      start = this.#nextFree(end);
    }
    return undefined;
  }

  /** Makes the commit final: `freed` wait for the readers that still see them. */
  commit(freed: readonly PageRun[]): void {
    this.#allocated = [];
    if (freed.length === 0 || this.#damage !== undefined) return;
    const stray = freed.find((run) => this.has(run.id));
    if (stray !== undefined) {
      this.#freeze(`page ${stray.id} was free and in use`);
      return;
    }
    const runs: PendingRun[] = [];
    for (const { id, count } of freed) {
      const writtenBy = this.#writtenBy.size === 0 ? 0 : (this.#writtenBy.get(id) ?? 0);
      if (writtenBy !== 0) this.#writtenBy.delete(id);
      runs.push({ id, count, writtenBy });
      this.#pendingCount += count;
    }
    this.#pending.set(this.#txid, runs);
  }

  /** Takes back every allocation since {@link begin}. */
  rollback(): void {
    for (const run of this.#allocated) {
      for (let id = run.id; id < run.id + run.count; id++) this.#set(id);
      this.#writtenBy.delete(run.id);
    }
    this.#allocated = [];
  }

  /** Bytes of a freelist page run that lists all of it and `freed`. */
  encodedSize(freed: readonly PageRun[]): number {
    const count = this.#freeCount + this.#pendingCount + pagesIn(freed);
    return PAGE_HEADER_SIZE + ID_SIZE * (count >= COUNT_OVERFLOW ? count + 1 : count);
  }

  /** Writes free, waiting and `freed` pages, sorted, as page `id` into `bytes` (a page run, zeroed). */
  encode(bytes: Uint8Array, id: number, overflow: number, freed: readonly PageRun[]): void {
    const ids = this.ids();
    for (const run of freed) for (let page = run.id; page < run.id + run.count; page++) ids.push(page);
    ids.sort((a, b) => a - b);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
    writePageHeader(words, id, FREELIST_FLAG, Math.min(ids.length, COUNT_OVERFLOW), overflow);
    let at = PAGE_HEADER_SIZE / 4;
    if (ids.length >= COUNT_OVERFLOW) {
      setWordPair(words, at, ids.length);
      at += 2;
    }
    for (const free of ids) {
      setWordPair(words, at, free);
      at += 2;
    }
  }

  /** Every free or waiting page, sorted. */
  ids(): number[] {
    const ids: number[] = [];
    for (let id = this.#nextFree(0); id !== undefined; id = this.#nextFree(id + 1)) ids.push(id);
    for (const runs of this.#pending.values()) {
      for (const run of runs) for (let id = run.id; id < run.id + run.count; id++) ids.push(id);
    }
    return ids.sort((a, b) => a - b);
  }

  #set(id: number): void {
    if (this.#damage !== undefined) return;
    if (this.has(id)) {
      this.#freeze(`page ${id} was freed twice`);
      return;
    }
    const word = id >>> 5;
    if (word >= this.#bits.length) {
      const larger = new Uint32Array(Math.max(word + 1, this.#bits.length * 2));
      larger.set(this.#bits);
      this.#bits = larger;
    }
    this.#bits[word] = (this.#bits[word] ?? 0) | (1 << (id & 31));
    this.#freeCount++;
    if (id < this.#lowest) this.#lowest = id;
  }

  #clear(id: number): void {
    const word = id >>> 5;
    this.#bits[word] = (this.#bits[word] ?? 0) & ~(1 << (id & 31));
    this.#freeCount--;
  }
}

export function pagesIn(runs: readonly PageRun[]): number {
  let pages = 0;
  for (const run of runs) pages += run.count;
  return pages;
}

/** Reads a freelist page run; a fault is returned as its text. `pageCount` bounds the ids. */
export function decodeFreelist(bytes: Uint8Array, id: number, pageCount: number): number[] | string {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  if (wordPair(words, 0) !== id) return `calls itself page ${wordPair(words, 0)}`;
  if (((words[2] ?? 0) & 0xffff) !== FREELIST_FLAG) return "is not a freelist";
  let count = (words[2] ?? 0) >>> 16;
  let at = PAGE_HEADER_SIZE / 4;
  if (count === COUNT_OVERFLOW) {
    count = wordPair(words, at);
    at += 2;
  }
  if (at + count * 2 > words.length) return `lists ${count} pages on ${bytes.length} bytes`;
  const ids: number[] = [];
  for (let i = 0; i < count; i++) ids.push(wordPair(words, at + i * 2));
  ids.sort((a, b) => a - b);
  for (let i = 0; i < count; i++) {
    const free = ids[i] ?? 0;
    if (free < 2 || free >= pageCount) return `lists page ${free} of ${pageCount}`;
    if (free === ids[i - 1]) return `lists page ${free} twice`;
  }
  return ids;
}
