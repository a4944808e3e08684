import { fail } from "../../model/errors.ts";
import { MAX_RECORD_BYTES, MAX_SPARSE_STRETCHES } from "../limits.ts";
import {
  BLOCK_BYTES,
  decodeHeader,
  invalidHeader,
  isZeroBlock,
  type RawHeader,
  type TarHeader,
  TarType,
  text,
} from "./header.ts";
import { applyPaxRecords, type PaxRecords, parsePaxRecords } from "./pax.ts";
import {
  oldRealSize,
  oldStretches,
  paxRealSize,
  paxSparse,
  type SparseFile,
  SparseMap,
  type Stretch,
  validateSparse,
} from "./sparse.ts";

/** What is read out of an archive, in its order: one `entry`, the data of a file, one `end`. */
export interface TarSink {
  entry(header: TarHeader): void;
  /** Belongs at `offset` of the file, which only grows; valid during the call. Not called for holes. */
  data(bytes: Buffer, offset: number): void;
  end(): void;
}

/** Of these the size field means nothing (Go `archive/tar` isHeaderOnlyType). */
const WITHOUT_DATA: ReadonlySet<string> = new Set([
  TarType.hardLink,
  TarType.symbolicLink,
  TarType.characterDevice,
  TarType.blockDevice,
  TarType.directory,
  TarType.fifo,
]);

const EXTENSIONS: ReadonlySet<string> = new Set([
  TarType.pax,
  TarType.paxGlobal,
  TarType.gnuLongName,
  TarType.gnuLongLink,
]);

const NO_RECORDS: PaxRecords = new Map();

type State = "header" | "record" | "oldSparse" | "sparseMap" | "data" | "padding" | "end";

/**
 * Reads a tar stream as it comes, in pieces of any size, and calls the sink at once. Formats: v7, ustar, PAX, GNU with long names
 * and all its sparse files, star. What is accepted and refused follows Go's `archive/tar`, which containerd reads with.
 */
export class TarReader {
  readonly #sink: TarSink;
  #state: State = "header";
  /** What is gathered of a block, a record or a map that is not whole yet. */
  #gathered: Buffer = Buffer.alloc(0);
  /** Bytes until the state ends: of the record, the data or the padding. */
  #left = 0;
  /** Behind the data, up to the next block. */
  #padding = 0;
  #zeroBlocks = 0;
  #header: RawHeader | undefined;
  #records = NO_RECORDS;
  #longName = "";
  #longLink = "";
  #stretches: readonly Stretch[] = [];
  #stretch = 0;
  #inStretch = 0;
  #oldSparse: { stretches: Stretch[]; sizeBytes: number } = { stretches: [], sizeBytes: 0 };
  #map = new SparseMap();

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  /** @throws Unknown on what is no tar, and what the sink throws; the reader is of no use then */
  push(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      switch (this.#state) {
        case "header":
        case "oldSparse":
          rest = this.#takeBlock(rest);
          break;
        case "record":
          rest = this.#takeRecord(rest);
          break;
        case "sparseMap":
          rest = this.#takeSparseMap(rest);
          break;
        case "data":
          rest = this.#takeData(rest);
          break;
        case "padding":
          rest = this.#takePadding(rest);
          break;
        case "end":
          return;
      }
    }
  }

  /** To be called when there is no more. @throws Unknown in the middle of an entry; the two final blocks may be missing */
  finish(): void {
    const between = this.#state === "header" && this.#gathered.length === 0 && this.#records === NO_RECORDS;
    // The padding of the last entry may be missing too, as for Go.
    if (between || this.#state === "end" || this.#state === "padding") return;
    const where = this.#header === undefined ? "" : `: ${shown(this.#header)}`;
    throw fail("Unknown", `unexpected EOF in layer${where}`);
  }

  /** A whole block, out of the chunk itself if it is there. */
  #takeBlock(chunk: Buffer): Buffer {
    const missing = BLOCK_BYTES - this.#gathered.length;
    if (chunk.length < missing) {
      this.#gathered = Buffer.concat([this.#gathered, chunk]);
      return chunk.subarray(chunk.length);
    }
    const piece = chunk.subarray(0, missing);
    const block = this.#gathered.length === 0 ? piece : Buffer.concat([this.#gathered, piece]);
    this.#gathered = Buffer.alloc(0);
    if (this.#state === "header") this.#readHeader(block);
    else this.#readOldSparse(block, false);
    return chunk.subarray(missing);
  }

  #readHeader(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = "end";
      return;
    }
    if (this.#zeroBlocks > 0) throw invalidHeader("block of zeros", "an entry follows it");
    const header = decodeHeader(block);
    this.#header = header;
    if (EXTENSIONS.has(header.type)) {
      if (header.sizeBytes < 0 || header.sizeBytes > MAX_RECORD_BYTES)
        throw invalidHeader(shown(header), `record of ${header.sizeBytes} bytes`);
      this.#left = header.sizeBytes;
      this.#padding = paddingOf(header.sizeBytes);
      this.#state = "record";
      if (this.#left === 0) this.#readRecord(Buffer.alloc(0));
      return;
    }
    applyPaxRecords(header, this.#records);
    // Go's archive/tar, that of the image's builders and scanners, lets them win over PAX: all must read the same name.
    if (this.#longName !== "") header.name = this.#longName;
    if (this.#longLink !== "") header.linkName = this.#longLink;
    // Of old archives: the slash tells a directory.
    if (header.type === TarType.oldFile)
      header.type = header.name.endsWith("/") ? TarType.directory : TarType.file;
    if (header.type === TarType.gnuSparse) this.#readOldSparse(block, true);
    else this.#begin(header);
  }

  #takeRecord(chunk: Buffer): Buffer {
    const piece = chunk.subarray(0, this.#left);
    this.#left -= piece.length;
    this.#gathered =
      this.#gathered.length === 0 ? Buffer.from(piece) : Buffer.concat([this.#gathered, piece]);
    if (this.#left === 0) {
      const body = this.#gathered;
      this.#gathered = Buffer.alloc(0);
      this.#readRecord(body);
    }
    return chunk.subarray(piece.length);
  }

  #readRecord(body: Buffer): void {
    const header = this.#header;
    if (header === undefined) throw new Error("a record has a header");
    // Global records are ignored, as containerd does, and with them what stands before: to Go they are an entry.
    if (header.type === TarType.paxGlobal) this.#forgetRecords();
    else if (header.type === TarType.pax) this.#records = parsePaxRecords(body, shown(header));
    else if (header.type === TarType.gnuLongName) this.#longName = text(body, 0, body.length);
    else if (header.type === TarType.gnuLongLink) this.#longLink = text(body, 0, body.length);
    this.#pad();
  }

  /** The old format: stretches in the header, further ones in blocks behind it. */
  #readOldSparse(block: Buffer, isHeader: boolean): void {
    const header = this.#header;
    if (header === undefined) throw new Error("a sparse file has a header");
    const { stretches, more } = oldStretches(block, isHeader, shown(header));
    if (isHeader) this.#oldSparse = { stretches: [], sizeBytes: oldRealSize(block, shown(header)) };
    this.#oldSparse.stretches.push(...stretches);
    if (this.#oldSparse.stretches.length > MAX_SPARSE_STRETCHES)
      throw invalidHeader(shown(header), "too many stretches of data");
    this.#state = "oldSparse";
    if (!more) this.#open({ ...header, type: TarType.file }, this.#oldSparse, header.sizeBytes);
  }

  #begin(header: RawHeader): void {
    if (WITHOUT_DATA.has(header.type)) header.sizeBytes = 0;
    if (header.sizeBytes < 0) throw invalidHeader(shown(header), "negative size");
    const stored = header.sizeBytes;
    const sparse = header.type === TarType.file ? paxSparse(header, this.#records) : undefined;
    if (sparse === "inData") {
      this.#left = stored;
      this.#padding = paddingOf(stored);
      this.#map = new SparseMap();
      this.#state = "sparseMap";
      if (stored === 0) throw invalidHeader(shown(header), "sparse map without an end");
      return;
    }
    this.#open(header, sparse, stored);
  }

  /** The map of sparse format 1.0, in whole blocks before the data. */
  #takeSparseMap(chunk: Buffer): Buffer {
    const header = this.#header;
    if (header === undefined) throw new Error("a map has a header");
    const missing = BLOCK_BYTES - this.#gathered.length;
    const piece = chunk.subarray(0, Math.min(missing, this.#left));
    this.#gathered = Buffer.concat([this.#gathered, piece]);
    this.#left -= piece.length;
    if (this.#gathered.length === BLOCK_BYTES) {
      const stretches = this.#map.add(this.#gathered, shown(header));
      this.#gathered = Buffer.alloc(0);
      if (stretches !== undefined) {
        const sizeBytes = paxRealSize(header, this.#records) ?? 0;
        const padding = this.#padding;
        this.#open(header, { stretches, sizeBytes }, this.#left, padding);
        return chunk.subarray(piece.length);
      }
    }
    if (this.#left === 0) throw invalidHeader(shown(header), "sparse map without an end");
    return chunk.subarray(piece.length);
  }

  #forgetRecords(): void {
    this.#records = NO_RECORDS;
    this.#longName = "";
    this.#longLink = "";
  }

  /** Tells the sink of the entry, of which `stored` bytes follow. */
  #open(
    header: RawHeader,
    sparse: SparseFile | undefined,
    stored: number,
    padding = paddingOf(stored),
  ): void {
    if (sparse !== undefined) validateSparse(sparse, stored, shown(header));
    this.#header = header;
    this.#stretches = sparse?.stretches ?? [{ offset: 0, length: stored }];
    this.#stretch = 0;
    this.#inStretch = 0;
    this.#left = stored;
    this.#padding = padding;
    this.#state = "data";
    this.#forgetRecords();
    if (sparse !== undefined) header.sizeBytes = sparse.sizeBytes;
    this.#sink.entry(header);
    if (stored === 0) this.#endEntry();
  }

  #takeData(chunk: Buffer): Buffer {
    const stretch = this.#stretches[this.#stretch];
    if (stretch === undefined) throw new Error("data without a place in the file");
    const piece = chunk.subarray(0, Math.min(this.#left, stretch.length - this.#inStretch));
    if (piece.length > 0) this.#sink.data(piece, stretch.offset + this.#inStretch);
    this.#inStretch += piece.length;
    this.#left -= piece.length;
    if (this.#inStretch === stretch.length) {
      this.#stretch += 1;
      this.#inStretch = 0;
    }
    if (this.#left === 0) this.#endEntry();
    return chunk.subarray(piece.length);
  }

  #endEntry(): void {
    this.#sink.end();
    this.#pad();
  }

  #pad(): void {
    this.#left = this.#padding;
    this.#state = this.#left === 0 ? "header" : "padding";
  }

  #takePadding(chunk: Buffer): Buffer {
    const skipped = Math.min(this.#left, chunk.length);
    this.#left -= skipped;
    if (this.#left === 0) this.#state = "header";
    return chunk.subarray(skipped);
  }
}

function paddingOf(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

function shown({ name }: RawHeader): string {
  return JSON.stringify(name.slice(0, 256));
}
