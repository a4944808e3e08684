/** Consistency of a database: what `bunkerd db check` prints (reference: bbolt tx_check.go). */
import { isError, messageOf } from "../model/errors.ts";
import { readFreelist, scanFree } from "./free-scan.ts";
import { type Meta, NO_FREELIST } from "./meta.ts";
import type { PageStore } from "./page-store.ts";
import { walkFromRoot } from "./reach.ts";

/**
 * Every problem of `meta`'s state in words; none means: all reachable pages are sound, referenced once, with their keys in order, and
 * every other page is free. `freeIds` are the free and waiting pages of an open database; without it the file's own freelist is read.
 */
export function findProblems(store: PageStore, meta: Meta, freeIds?: readonly number[]): string[] {
  const problems: string[] = [];
  const report = (problem: string): void => {
    problems.push(problem);
  };
  const reached = new Uint8Array(meta.pageCount);
  walkFromRoot({ store, meta, reached, checkOrder: true, report });
  reached.fill(1, 0, 2);
  const ids = freeIds ?? fileFreelist(store, meta, reached, report);
  const freed = new Uint8Array(meta.pageCount);
  for (const id of ids) {
    if (freed[id] === 1) report(`page ${id}: already freed`);
    if (reached[id] === 1) report(`page ${id}: reachable freed`);
    freed[id] = 1;
  }
  // Without a freelist page free is what is not reached.
  if (ids.length === 0 && meta.freelist === NO_FREELIST && freeIds === undefined) return problems;
  for (let id = 0; id < meta.pageCount; id++) {
    if (reached[id] === 0 && freed[id] === 0) report(`page ${id}: unreachable unfreed`);
  }
  return problems;
}

/** The free pages by the freelist page, which counts as reached. */
function fileFreelist(
  store: PageStore,
  meta: Meta,
  reached: Uint8Array,
  report: (problem: string) => void,
): readonly number[] {
  if (meta.freelist === NO_FREELIST) return [];
  try {
    const { ids, pageCount } = readFreelist(store, meta);
    markRun(reached, meta.freelist, pageCount, report);
    return ids;
  } catch (error) {
    if (!isError(error)) throw error;
    report(messageOf(error));
    return scanFree(store, meta, () => undefined);
  }
}

function markRun(reached: Uint8Array, id: number, count: number, report: (problem: string) => void): void {
  for (let page = id; page < id + count; page++) {
    if (reached[page] === 1) report(`page ${page}: multiple references (freelist)`);
    reached[page] = 1;
  }
}
