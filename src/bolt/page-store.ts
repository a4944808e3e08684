/**
 * Pages of the file through a bounded cache. A cached page never changes: a page id gets new content only when no reader can see the old
 * one any more, and the commit that writes it replaces the entry. Buffers are never recycled, so views on them stay true.
 */
import { damagedPage, fileFailure } from "./faults.ts";
import { type Page, pageFault, pageOf, readU32 } from "./page.ts";
import type { PageFile } from "./page-file.ts";

/** A page run larger than this part of the cache is read each time. */
const LARGEST_SHARE = 8;
/** A full cache lets this part of it go. */
const EVICTED_SHARE = 16;

export class PageStore {
  readonly file: PageFile;
  readonly pageSize: number;
  readonly #capacityBytes: number;
  readonly #pages = new Map<number, Page>();
  #cachedBytes = 0;

  constructor(file: PageFile, pageSize: number, capacityBytes: number) {
    this.file = file;
    this.pageSize = pageSize;
    this.#capacityBytes = capacityBytes;
  }

  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  /** The branch or leaf page `id` of a database of `pageCount` pages. Throws DataLoss naming the page when it is not sound. */
  get(id: number, pageCount: number): Page {
    const cached = this.#pages.get(id);
    if (cached !== undefined) {
      cached.used = true;
      return cached;
    }
    const page = this.load(id, pageCount);
    this.#add(page);
    return page;
  }

  /** Reads and checks a page without the cache: into `scratch` where the run fits there, so only until `scratch` is used again. */
  load(id: number, pageCount: number, scratch?: Uint8Array): Page {
    const page = pageOf(this.readRun(id, pageCount, scratch));
    const fault = pageFault(page, id, pageCount);
    if (fault !== undefined) throw damagedPage(this.file.path, id, fault);
    return page;
  }

  /** The bytes of the page run that starts at `id`; only its length has been checked. */
  readRun(id: number, pageCount: number, scratch?: Uint8Array): Uint8Array {
    if (!(id >= 2 && id < pageCount))
      throw damagedPage(this.file.path, id, `is not one of ${pageCount} pages`);
    const first = this.#read(id, 1, scratch);
    const overflow = readU32(first, 12);
    if (overflow === 0) return first;
    if (id + overflow >= pageCount)
      throw damagedPage(this.file.path, id, `runs past the last page (overflow ${overflow})`);
    return this.#read(id, 1 + overflow, scratch);
  }

  #read(id: number, count: number, scratch: Uint8Array | undefined): Uint8Array {
    const size = count * this.pageSize;
    const bytes =
      scratch !== undefined && scratch.length >= size ? scratch.subarray(0, size) : new Uint8Array(size);
    let found: number;
    try {
      found = this.file.read(bytes, id * this.pageSize);
    } catch (error) {
      throw fileFailure(this.file.path, `read of page ${id}`, error);
    }
    if (found < size) throw damagedPage(this.file.path, id, `is cut off after ${found} of ${size} bytes`);
    return bytes;
  }

  /** Takes in the pages that a commit has made durable. */
  install(pages: readonly Page[]): void {
    for (const page of pages) {
      this.#drop(page.id);
      this.#add(page);
    }
  }

  /** Forgets pages; with no argument all of them. */
  forget(ids?: Iterable<number>): void {
    for (const id of ids ?? [...this.#pages.keys()]) this.#drop(id);
  }

  #drop(id: number): void {
    const page = this.#pages.get(id);
    if (page === undefined) return;
    this.#pages.delete(id);
    this.#cachedBytes -= page.bytes.length;
  }

  #add(page: Page): void {
    if (page.bytes.length * LARGEST_SHARE > this.#capacityBytes) return;
    this.#pages.set(page.id, page);
    this.#cachedBytes += page.bytes.length;
    if (this.#cachedBytes > this.#capacityBytes) this.#evict();
  }

  /**
   * Second chance: the oldest go, but for those used since they were last passed. Many go at once, because every walk of the map
   * begins with stepping over what was deleted.
   */
  #evict(): void {
    const wantedBytes = this.#capacityBytes - this.#capacityBytes / EVICTED_SHARE;
    for (const [id, page] of this.#pages) {
      if (this.#cachedBytes <= wantedBytes) return;
      this.#pages.delete(id);
      if (page.used) {
        page.used = false;
        this.#pages.set(id, page);
      } else {
        this.#cachedBytes -= page.bytes.length;
      }
    }
  }
}
