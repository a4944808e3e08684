import type { Timespec } from "../../linux/at.ts";
import { fail } from "../../model/errors.ts";

/*
 * One 512-byte header of tar: POSIX ustar (pax(1)), and GNU tar's forms of it (tar manual, "Basic Tar Format"). Texts are binary
 * strings, one character a byte.
 */

export const BLOCK_BYTES = 512;

export const TarType = {
  file: "0",
  oldFile: "\0",
  hardLink: "1",
  symbolicLink: "2",
  characterDevice: "3",
  blockDevice: "4",
  directory: "5",
  fifo: "6",
  pax: "x",
  paxGlobal: "g",
  gnuLongName: "L",
  gnuLongLink: "K",
  gnuSparse: "S",
} as const;

export interface TarHeader {
  readonly name: string;
  readonly linkName: string;
  /** A value of {@link TarType}, or what else stands there. */
  readonly type: string;
  /** Permissions and set-id bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the file once it is written; of a sparse one with its holes. */
  readonly sizeBytes: number;
  readonly modified: Timespec;
  readonly accessed: Timespec | undefined;
  readonly major: number;
  readonly minor: number;
  /** Name to value, without PAX's prefix. */
  readonly xattrs: ReadonlyMap<string, string>;
}

/** A header's fields before extensions change them. */
export type RawHeader = { -readonly [K in keyof TarHeader]: TarHeader[K] } & { format: Format };

type Format = "v7" | "ustar" | "gnu" | "star";

const NO_XATTRS: ReadonlyMap<string, string> = new Map();

/** @throws Unknown, in Go's words, naming `where` */
export function invalidHeader(where: string, reason: string): Error {
  return fail("Unknown", `archive/tar: invalid tar header: ${where}: ${reason}`);
}

export function isZeroBlock(block: Buffer): boolean {
  for (let at = 0; at < BLOCK_BYTES; at += 4) if (block.readUInt32LE(at) !== 0) return false;
  return true;
}

/** Decodes a block that is not all zeros. @throws Unknown if its checksum or a number is wrong */
export function decodeHeader(block: Buffer): RawHeader {
  const name = text(block, 0, 100);
  const where = JSON.stringify(name.slice(0, 100));
  verifyChecksum(block, where);
  const number = (field: string, at: number, length: number): number =>
    decodeNumber(block, at, length, `${where} ${field}`);
  const format = formatOf(block);
  const prefix = format === "ustar" ? text(block, 345, 155) : format === "star" ? text(block, 345, 131) : "";
  const numbered = format !== "v7";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number("mode", 100, 8),
    uid: number("uid", 108, 8),
    gid: number("gid", 116, 8),
    sizeBytes: number("size", 124, 12),
    modified: { seconds: number("mtime", 136, 12), nanoseconds: 0 },
    accessed: undefined,
    type: String.fromCharCode(block[156] ?? 0),
    linkName: text(block, 157, 100),
    major: numbered ? number("devmajor", 329, 8) : 0,
    minor: numbered ? number("devminor", 337, 8) : 0,
    xattrs: NO_XATTRS,
    format,
  };
}

function formatOf(block: Buffer): Format {
  const magic = block.toString("latin1", 257, 265);
  if (magic === "ustar  \0") return "gnu";
  if (!magic.startsWith("ustar\0")) return "v7";
  return block.toString("latin1", 508, 512) === "tar\0" ? "star" : "ustar";
}

/** Some old writers summed signed bytes. */
function verifyChecksum(block: Buffer, where: string): void {
  let unsigned = 8 * 0x20;
  let high = 0;
  for (let at = 0; at < BLOCK_BYTES; at++) {
    if (at >= 148 && at < 156) continue;
    const byte = block[at] ?? 0;
    unsigned += byte;
    if (byte > 127) high += 256;
  }
  const sum = decodeNumber(block, 148, 8, `${where} checksum`);
  if (sum !== unsigned && sum !== unsigned - high) throw invalidHeader(where, "checksum");
}

/** Up to the first NUL. */
export function text(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString("latin1", at, end >= 0 && end < at + length ? end : at + length);
}

/** Octal digits, or, with the highest bit set, a big-endian two's complement. @throws Unknown */
export function decodeNumber(block: Buffer, at: number, length: number, where: string): number {
  const first = block[at] ?? 0;
  if ((first & 0x80) !== 0) return decodeBinary(block.subarray(at, at + length), where);
  const digits = block.toString("latin1", at, at + length).replace(/^[ \0]+/, "");
  const end = digits.search(/[ \0]/);
  const octal = end < 0 ? digits : digits.slice(0, end);
  if (octal === "") return 0;
  if (!/^[0-7]+$/.test(octal)) throw invalidHeader(where, "is no number");
  return exact(Number.parseInt(octal, 8), where);
}

function decodeBinary(bytes: Buffer, where: string): number {
  const negative = ((bytes[0] ?? 0) & 0x40) !== 0;
  let value = negative ? -1n : 0n;
  bytes.forEach((byte, index) => {
    const bits = index === 0 ? (negative ? byte | 0x80 : byte & 0x7f) : byte;
    value = index === 0 && negative ? BigInt(bits) - 256n : (value << 8n) | BigInt(bits);
  });
  return exact(Number(value), where);
}

function exact(value: number, where: string): number {
  if (!Number.isSafeInteger(value)) throw invalidHeader(where, "is out of range");
  return value;
}
