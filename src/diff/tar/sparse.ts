import { MAX_SPARSE_STRETCHES } from "../limits.ts";
import { BLOCK_BYTES, decodeNumber, invalidHeader, type RawHeader } from "./header.ts";
import type { PaxRecords } from "./pax.ts";

/*
 * Sparse files of GNU tar (manual, "Storing Sparse Files"): the old format in the header, 0.0 and 0.1 in PAX records, 1.0 at the start of
 * the data.
 */

/** A stretch of data of a sparse file, in bytes. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

export interface SparseFile {
  readonly stretches: readonly Stretch[];
  /** With the holes. */
  readonly sizeBytes: number;
}

/** In the old format: four stretches, whether a block of 21 more follows, and the real size. */
const OLD_MAP_AT = 386;
const OLD_EXTENDED_AT = 482;
const OLD_SIZE_AT = 483;
const MORE_EXTENDED_AT = 504;

/** Stretches that a block of the old format names, and whether another follows. */
export function oldStretches(
  block: Buffer,
  isHeader: boolean,
  where: string,
): { stretches: Stretch[]; more: boolean } {
  const stretches: Stretch[] = [];
  const start = isHeader ? OLD_MAP_AT : 0;
  const end = isHeader ? OLD_EXTENDED_AT : MORE_EXTENDED_AT;
  for (let at = start; at + 24 <= end && block[at] !== 0; at += 24) {
    const offset = decodeNumber(block, at, 12, `${where} sparse offset`);
    stretches.push({ offset, length: decodeNumber(block, at + 12, 12, `${where} sparse length`) });
  }
  return { stretches, more: block[end] !== 0 };
}

export function oldRealSize(block: Buffer, where: string): number {
  return decodeNumber(block, OLD_SIZE_AT, 12, `${where} real size`);
}

/** What PAX records say of sparseness: a map, that the map stands before the data, or nothing. @throws Unknown */
export function paxSparse(header: RawHeader, records: PaxRecords): SparseFile | "inData" | undefined {
  const map = records.get("GNU.sparse.map");
  const isInData = records.get("GNU.sparse.major") === "1" && records.get("GNU.sparse.minor") === "0";
  if (map === undefined && !isInData) return undefined;
  const name = records.get("GNU.sparse.name");
  if (name !== undefined && name !== "") header.name = name;
  if (isInData) return "inData";
  const numbers = map === "" || map === undefined ? [] : map.split(",");
  return {
    stretches: pairs(numbers, shown(header)),
    sizeBytes: paxRealSize(header, records) ?? header.sizeBytes,
  };
}

export function paxRealSize(header: RawHeader, records: PaxRecords): number | undefined {
  const size = records.get("GNU.sparse.realsize") ?? records.get("GNU.sparse.size");
  return size === undefined ? undefined : natural(size, shown(header));
}

/**
 * The map of format 1.0, which stands in the first blocks of the data: decimal numbers, a line each, the first telling how many
 * stretches follow.
 */
export class SparseMap {
  readonly #blocks: Buffer[] = [];
  #newlines = 0;
  /** Lines of the map, once the first is known. */
  #wanted: number | undefined;

  /** Takes the next block; answers the map with its last one. @throws Unknown */
  add(block: Buffer, where: string): Stretch[] | undefined {
    this.#blocks.push(block);
    for (let at = block.indexOf(0x0a); at >= 0; at = block.indexOf(0x0a, at + 1)) this.#newlines += 1;
    const [first] = this.#blocks;
    if (this.#wanted === undefined && first !== undefined) {
      const end = first.indexOf(0x0a);
      const count = natural(first.toString("latin1", 0, Math.max(end, 0)), where);
      if (count > MAX_SPARSE_STRETCHES) throw invalidHeader(where, "too many stretches of data");
      this.#wanted = 1 + 2 * count;
    }
    const wanted = this.#wanted ?? 0;
    // Each line has a byte at least and twenty at most.
    if (this.#blocks.length * BLOCK_BYTES > wanted * 20 + BLOCK_BYTES)
      throw invalidHeader(where, "broken sparse map");
    if (this.#newlines < wanted) return undefined;
    const lines = Buffer.concat(this.#blocks).toString("latin1").split("\n");
    return pairs(lines.slice(1, wanted), where);
  }
}

/** @throws Unknown unless stretches ascend within the file and hold as many bytes as stand in the archive */
export function validateSparse({ stretches, sizeBytes }: SparseFile, stored: number, where: string): void {
  if (stretches.length > MAX_SPARSE_STRETCHES) throw invalidHeader(where, "too many stretches of data");
  let end = 0;
  let sum = 0;
  for (const { offset, length } of stretches) {
    if (offset < end || length < 0) throw invalidHeader(where, "stretches of data overlap");
    end = offset + length;
    sum += length;
  }
  if (end > sizeBytes || sum !== stored) throw invalidHeader(where, "sparse map does not fit the data");
}

function pairs(numbers: readonly string[], where: string): Stretch[] {
  if (numbers.length % 2 !== 0 || numbers.length > 2 * MAX_SPARSE_STRETCHES)
    throw invalidHeader(where, "broken sparse map");
  const stretches: Stretch[] = [];
  for (let at = 0; at < numbers.length; at += 2)
    stretches.push({
      offset: natural(numbers[at] ?? "", where),
      length: natural(numbers[at + 1] ?? "", where),
    });
  return stretches;
}

function natural(digits: string, where: string): number {
  const number = /^\d{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw invalidHeader(where, "broken sparse map");
  return number;
}

function shown(header: RawHeader): string {
  return JSON.stringify(header.name.slice(0, 256));
}
