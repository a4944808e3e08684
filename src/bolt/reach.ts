/** Walks every page that a state reaches and tells what is wrong with it (reference: bbolt tx_check.go). */
import { isError, messageOf } from "../model/errors.ts";
import { showKey } from "./keys.ts";
import type { Meta } from "./meta.ts";
import {
  BUCKET_FLAG,
  BUCKET_HEADER_SIZE,
  childId,
  compareKeys,
  elementFault,
  leafFlags,
  PAGE_HEADER_SIZE,
  type Page,
  pageKey,
  pageOf,
  pageValue,
  readU32,
} from "./page.ts";
import type { PageStore } from "./page-store.ts";

/** Pages and buckets below each other; a hostile file must not end our stack. */
const MAX_NESTING = 2000;
/** Longer runs get a buffer of their own. */
const SCRATCH_PAGES = 4;

export interface WalkOptions {
  readonly store: PageStore;
  readonly meta: Meta;
  /** One for each page that is reached. */
  readonly reached: Uint8Array;
  /** Whether the keys are compared too. */
  readonly checkOrder: boolean;
  /** Gets each problem, in words; it may throw to end the walk. */
  readonly report: (problem: string) => void;
}

/** Reads each page once, past the cache, which is for those who come again. */
export function walkFromRoot(walk: WalkOptions): void {
  walkPage({ ...walk, scratch: [] }, walk.meta.root, undefined, undefined, []);
}

interface Walk extends WalkOptions {
  /** A buffer for the page at each depth. */
  readonly scratch: Uint8Array[];
}

/** `low` <= every key < `high`, where they are given. `path` holds the pages above. */
function walkPage(
  walk: Walk,
  id: number,
  low: Uint8Array | undefined,
  high: Uint8Array | undefined,
  path: number[],
): void {
  const page = path.length > MAX_NESTING ? tooDeep(walk, id) : load(walk, id, path.length);
  if (page === undefined || !mark(walk, page, path)) return;
  if (walk.checkOrder) checkOrder(walk, page, `page ${id}`, low, high);
  path.push(id);
  for (let i = 0; i < page.count; i++) {
    if (page.isLeaf) walkBucket(walk, page, i, path);
    else
      walkPage(
        walk,
        childId(page, i),
        pageKey(page, i),
        i + 1 < page.count ? pageKey(page, i + 1) : high,
        path,
      );
  }
  path.pop();
}

function tooDeep(walk: Walk, id: number): undefined {
  walk.report(`page ${id}: nested deeper than ${MAX_NESTING}`);
}

function load(walk: Walk, id: number, depth: number): Page | undefined {
  const { store, meta, scratch } = walk;
  scratch[depth] ??= new Uint8Array(meta.pageSize * SCRATCH_PAGES);
  try {
    return store.load(id, meta.pageCount, scratch[depth]);
  } catch (error) {
    if (!isError(error)) throw error;
    walk.report(`page ${id}: ${messageOf(error)}`);
    return undefined;
  }
}

/** Notes the page's run; false when it was there already. */
function mark(walk: Walk, page: Page, path: readonly number[]): boolean {
  for (let id = page.id; id <= page.id + page.overflow; id++) {
    if (walk.reached[id] === 1) {
      walk.report(`page ${id}: multiple references (stack: ${path.join(" ")})`);
      return false;
    }
    walk.reached[id] = 1;
  }
  return true;
}

function walkBucket(walk: Walk, page: Page, index: number, path: number[]): void {
  if ((leafFlags(page, index) & BUCKET_FLAG) === 0) return;
  const value = pageValue(page, index);
  const root = readU32(value, 0) + readU32(value, 4) * 2 ** 32;
  if (root !== 0) walkPage(walk, root, undefined, undefined, path);
  else walkInline(walk, value, `page ${page.id}: inline bucket ${showKey(pageKey(page, index))}`, path);
}

function walkInline(walk: Walk, value: Uint8Array, where: string, path: number[]): void {
  const page =
    value.length < BUCKET_HEADER_SIZE + PAGE_HEADER_SIZE
      ? undefined
      : pageOf(value.slice(BUCKET_HEADER_SIZE));
  const fault = page?.isLeaf === true ? elementFault(page, walk.meta.pageCount) : "is not a leaf";
  if (page === undefined || fault !== undefined) {
    walk.report(`${where} ${fault ?? "is cut off"}`);
    return;
  }
  if (walk.checkOrder) checkOrder(walk, page, where, undefined, undefined);
  for (let i = 0; i < page.count; i++) walkBucket(walk, page, i, path);
}

function checkOrder(
  walk: Walk,
  page: Page,
  where: string,
  low: Uint8Array | undefined,
  high: Uint8Array | undefined,
): void {
  let before = low;
  for (let i = 0; i < page.count; i++) {
    const key = pageKey(page, i);
    const order = before === undefined ? 1 : compareKeys(key, before);
    if (order < 0 || (order === 0 && i > 0)) {
      walk.report(`${where}: key ${i} (${showKey(key)}) does not come after ${showKey(before ?? key)}`);
    }
    if (high !== undefined && compareKeys(key, high) >= 0) {
      walk.report(`${where}: key ${i} (${showKey(key)}) belongs behind ${showKey(high)}`);
    }
    before = key;
  }
}
