/** Where a database's freelist comes from: its freelist page, or a walk over all that is in use. */
import { damagedPage } from "./faults.ts";
import { decodeFreelist, Freelist } from "./freelist.ts";
import { type Meta, NO_FREELIST } from "./meta.ts";
import type { PageStore } from "./page-store.ts";
import { walkFromRoot } from "./reach.ts";

export interface LoadedFreelist {
  readonly freelist: Freelist;
  /** Pages of the run at `meta.freelist`. */
  readonly pageCount: number;
}

/** Without a freelist page a damaged database gets a list that reuses nothing: the walk cannot tell what is in use. */
export function loadFreelist(store: PageStore, meta: Meta): LoadedFreelist {
  if (meta.freelist !== NO_FREELIST) {
    const { ids, pageCount } = readFreelist(store, meta);
    return { freelist: new Freelist(ids), pageCount };
  }
  let damage: string | undefined;
  const ids = scanFree(store, meta, (problem) => {
    damage ??= problem;
  });
  return { freelist: new Freelist(damage === undefined ? ids : [], damage), pageCount: 0 };
}

/** Reads `meta`'s freelist page. Throws DataLoss naming the page. */
export function readFreelist(store: PageStore, meta: Meta): { ids: number[]; pageCount: number } {
  const bytes = store.readRun(meta.freelist, meta.pageCount);
  const ids = decodeFreelist(bytes, meta.freelist, meta.pageCount);
  if (typeof ids === "string") throw damagedPage(store.file.path, meta.freelist, ids);
  return { ids, pageCount: bytes.length / meta.pageSize };
}

/** Every page that `meta`'s state does not reach, as a database without a freelist page needs it. */
export function scanFree(store: PageStore, meta: Meta, report: (problem: string) => void): number[] {
  const reached = new Uint8Array(meta.pageCount);
  walkFromRoot({ store, meta, reached, checkOrder: false, report });
  const ids: number[] = [];
  for (let id = 2; id < meta.pageCount; id++) if (reached[id] === 0) ids.push(id);
  return ids;
}
