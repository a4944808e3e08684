/** Finds the state in a file, or says what the file is instead (reference: bbolt db.go, getPageSize and meta). */
import { type BunkerdError, fail } from "../model/errors.ts";
import { damagedFile, fileFailure } from "./faults.ts";
import { decodeMeta, encodeMeta, isPageSize, type Meta, type MetaFault, versionOf } from "./meta.ts";
import { FREELIST_FLAG, LEAF_FLAG, writePageHeader } from "./page.ts";
import type { PageFile } from "./page-file.ts";

export interface FoundMetas {
  /** The valid one with the highest transaction. */
  readonly meta: Meta;
  /** Both pages as they lie in the file. */
  readonly pages: readonly [Uint8Array, Uint8Array];
  /** Number of the page that is not valid, after a torn write. */
  readonly torn: number | undefined;
}

/** As much as tells a meta page. */
const PROBE_BYTES = 512;
const FREELIST_PAGE = 2;
const ROOT_PAGE = 3;

/** A database without buckets, as bbolt makes it: two metas, an empty freelist, an empty root leaf. */
export function newDatabase(pageSize: number): Uint8Array {
  if (!isPageSize(pageSize)) throw fail("InvalidArgument", `page size ${pageSize}`);
  const bytes = new Uint8Array(pageSize * 4);
  for (const txid of [0, 1]) {
    const meta: Meta = {
      pageSize,
      flags: 0,
      root: ROOT_PAGE,
      rootSequence: 0n,
      freelist: FREELIST_PAGE,
      pageCount: 4,
      txid,
    };
    bytes.set(encodeMeta(meta), txid * pageSize);
  }
  const words = new Uint32Array(bytes.buffer);
  writePageHeader(words.subarray((FREELIST_PAGE * pageSize) / 4), FREELIST_PAGE, FREELIST_FLAG, 0, 0);
  writePageHeader(words.subarray((ROOT_PAGE * pageSize) / 4), ROOT_PAGE, LEAF_FLAG, 0, 0);
  return bytes;
}

/**
 * Reads both metas. Throws DataLoss for a zeroed, truncated or damaged file, FailedPrecondition for another format version or byte order,
 * InvalidArgument for what is no database.
 */
export function readMetas(file: PageFile): FoundMetas {
  const size = file.size();
  const first = probe(file, 0);
  const meta = typeof first === "string" ? findSecondMeta(file, size) : first;
  if (meta === undefined) throw describe(file, size, typeof first === "string" ? first : "foreign");
  const pages = [readPage(file, 0, meta.pageSize), readPage(file, 1, meta.pageSize)] as const;
  const found = pages.map(decodeMeta);
  const valid = found.filter((one): one is Meta => typeof one !== "string" && one.pageSize === meta.pageSize);
  const newest = valid.reduce((best, one) => (one.txid > best.txid ? one : best), meta);
  const needed = newest.pageCount * newest.pageSize;
  if (size < needed) throw damagedFile(file.path, `truncated, it has ${size} of ${needed} bytes`);
  return {
    meta: newest,
    pages,
    torn: valid.length === 2 ? undefined : found.findIndex((one) => typeof one === "string"),
  };
}

function probe(file: PageFile, position: number): Meta | MetaFault {
  const bytes = new Uint8Array(PROBE_BYTES);
  return decodeMeta(bytes.subarray(0, readAt(file, bytes, position)));
}

/** With page 0 unreadable the page size is not known: it is the place where page 1 is found. */
function findSecondMeta(file: PageFile, size: number): Meta | undefined {
  for (let position = PROBE_BYTES; position < size && isPageSize(position); position *= 2) {
    const meta = probe(file, position);
    if (typeof meta !== "string" && meta.pageSize === position) return meta;
  }
  return undefined;
}

function readPage(file: PageFile, id: number, pageSize: number): Uint8Array {
  const bytes = new Uint8Array(pageSize);
  readAt(file, bytes, id * pageSize);
  return bytes;
}

function readAt(file: PageFile, bytes: Uint8Array, position: number): number {
  try {
    return file.read(bytes, position);
  } catch (error) {
    throw fileFailure(file.path, "read of the meta pages", error);
  }
}

function describe(file: PageFile, size: number, fault: MetaFault): BunkerdError {
  const name = `database "${file.path}"`;
  if (size === 0) return damagedFile(file.path, "empty");
  switch (fault) {
    case "zero":
      return damagedFile(file.path, "zeroed, it has no meta page");
    case "big-endian":
      return fail("FailedPrecondition", `${name} was written on a big-endian machine`);
    case "version": {
      const bytes = readPage(file, 0, PROBE_BYTES);
      return fail(
        "FailedPrecondition",
        `${name} has format version ${versionOf(bytes)}, version 2 is wanted`,
      );
    }
    case "checksum":
    case "values":
      return damagedFile(file.path, "both meta pages are invalid");
    case "foreign":
      return fail("InvalidArgument", `${name} is not a bbolt database`);
  }
}
