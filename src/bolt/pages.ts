/** A listing of a database's pages: what `bunkerd db pages` prints. */
import { isError } from "../model/errors.ts";
import { readFreelist, scanFree } from "./free-scan.ts";
import { NO_FREELIST } from "./meta.ts";
import { BRANCH_FLAG, FREELIST_FLAG, LEAF_FLAG, META_FLAG, PAGE_HEADER_SIZE, readU32 } from "./page.ts";
import type { Snapshot } from "./tx.ts";

export interface PageInfo {
  readonly id: number;
  /** "meta", "branch", "leaf", "freelist", "free", or "unknown<flags>". */
  readonly type: string;
  readonly count: number;
  /** Pages behind this one that belong to it. */
  readonly overflow: number;
}

const TYPES: Readonly<Record<number, string>> = {
  [BRANCH_FLAG]: "branch",
  [LEAF_FLAG]: "leaf",
  [META_FLAG]: "meta",
  [FREELIST_FLAG]: "freelist",
};

/** Lists the page runs in file order; free pages one by one. Pages are not checked, so that damage can be looked at. */
export function* listPages({ store, meta }: Snapshot): Generator<PageInfo> {
  const free = new Set(freeIds({ store, meta }));
  const header = new Uint8Array(PAGE_HEADER_SIZE);
  for (let id = 0; id < meta.pageCount; ) {
    if (free.has(id)) {
      yield { id, type: "free", count: 0, overflow: 0 };
      id++;
      continue;
    }
    header.fill(0);
    store.file.read(header, id * meta.pageSize);
    const flags = readU32(header, 8) & 0xffff;
    const type = TYPES[flags] ?? `unknown<${flags.toString(16).padStart(2, "0")}>`;
    const overflow = readU32(header, 12);
    yield { id, type, count: readU32(header, 8) >>> 16, overflow };
    id += 1 + (id + overflow < meta.pageCount ? overflow : 0);
  }
}

function freeIds({ store, meta }: Snapshot): readonly number[] {
  if (meta.freelist === NO_FREELIST) return scanFree(store, meta, () => undefined);
  try {
    return readFreelist(store, meta).ids;
  } catch (error) {
    if (isError(error, "DataLoss")) return []; // check tells of it; here every page shows its own header
    throw error;
  }
}
