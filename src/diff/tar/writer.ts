import type { Timespec } from "../../linux/at.ts";
import { BLOCK_BYTES, TarType } from "./header.ts";

/*
 * Headers of tar in the PAX form, byte for byte as Go's `archive/tar` writes them: a layer made here has the digest that
 * containerd's would have.
 */

export interface EntryToWrite {
  /** Bytes, as all names; a directory's ends in a slash. */
  readonly name: string;
  readonly linkName: string;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly modified: Timespec;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, string>;
}

/** The header blocks of an entry; its data follows, then zeros up to a whole block. */
export function encodeHeader(entry: EntryToWrite): Buffer {
  const records = paxRecords(entry);
  const header = encodeBlock(entry);
  if (records.length === 0) return header;
  const body = Buffer.from(records.join(""), "latin1");
  const pax = encodeBlock({
    name: paxHeaderName(entry.name),
    linkName: "",
    type: TarType.pax,
    mode: 0,
    uid: 0,
    gid: 0,
    sizeBytes: body.length,
    modified: { seconds: 0, nanoseconds: 0 },
    major: 0,
    minor: 0,
    xattrs: new Map(),
  });
  return Buffer.concat([pax, body, Buffer.alloc(paddingBytes(body.length)), header]);
}

/** Zeros up to a whole block. */
export function paddingBytes(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

/** Behind the last entry. */
export function encodeTrailer(): Buffer {
  return Buffer.alloc(2 * BLOCK_BYTES);
}

/** What the fields of the block cannot hold, ordered by key. */
function paxRecords(entry: EntryToWrite): string[] {
  const records: [string, string][] = [];
  if (!fitsText(entry.name)) records.push(["path", entry.name]);
  if (!fitsText(entry.linkName)) records.push(["linkpath", entry.linkName]);
  if (!fitsOctal(entry.sizeBytes, 12)) records.push(["size", String(entry.sizeBytes)]);
  if (!fitsOctal(entry.uid, 8)) records.push(["uid", String(entry.uid)]);
  if (!fitsOctal(entry.gid, 8)) records.push(["gid", String(entry.gid)]);
  if (!fitsOctal(entry.modified.seconds, 12)) records.push(["mtime", String(entry.modified.seconds)]);
  for (const [name, value] of entry.xattrs) records.push([`SCHILY.xattr.${name}`, value]);
  return records.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => paxRecord(key, value));
}

/** The length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + String(rest.length).length;
  if (String(length).length !== String(rest.length).length) length = rest.length + String(length).length;
  return `${length}${rest}`;
}

function encodeBlock(entry: EntryToWrite): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  writeText(block, entry.name, 0);
  writeOctal(block, entry.mode, 100, 8);
  writeOctal(block, entry.uid, 108, 8);
  writeOctal(block, entry.gid, 116, 8);
  writeOctal(block, entry.sizeBytes, 124, 12);
  writeOctal(block, entry.modified.seconds, 136, 12);
  block.write(entry.type, 156, "latin1");
  writeText(block, entry.linkName, 157);
  block.write("ustar\u000000", 257, "latin1");
  // A header of records has no device numbers, not even zeros.
  if (entry.type !== TarType.pax) {
    writeOctal(block, entry.major, 329, 8);
    writeOctal(block, entry.minor, 337, 8);
  }
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** What is no ASCII is left out here and stands in a record; so does what is cut off. */
function writeText(block: Buffer, text: string, at: number): void {
  const ascii = asciiOf(text);
  const field = ascii.length > 100 && ascii[99] === "/" ? ascii.slice(0, 99).replace(/\/+$/, "") : ascii;
  block.write(field.slice(0, 100), at, "latin1");
}

/** Of the header that holds the records: `<directory>/PaxHeaders.0/<file>`, as long as fits. */
function paxHeaderName(name: string): string {
  const slash = name.lastIndexOf("/") + 1;
  const file = name.slice(slash);
  const joined = `${name.slice(0, slash)}PaxHeaders.0${file === "" ? "" : `/${file}`}`;
  return asciiOf(joined).slice(0, 100).replace(/\/+$/, "");
}

function writeOctal(block: Buffer, value: number, at: number, length: number): void {
  const digits = (fitsOctal(value, length) ? value : 0).toString(8);
  block.write(digits.padStart(length - 1, "0"), at, "latin1");
}

function fitsOctal(value: number, length: number): boolean {
  return value >= 0 && value < 8 ** (length - 1);
}

function fitsText(text: string): boolean {
  return text.length <= 100 && asciiOf(text) === text;
}

function asciiOf(text: string): string {
  const bytes = Buffer.from(text, "latin1").filter((byte) => byte > 0 && byte < 0x80);
  return Buffer.from(bytes).toString("latin1");
}
