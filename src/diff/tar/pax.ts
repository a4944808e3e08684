import type { Timespec } from "../../linux/at.ts";
import { invalidHeader, type RawHeader } from "./header.ts";

/*
 * PAX records: `<length> <key>=<value>\n`, pax(1) "pax Extended Header". Extended attributes are those of star, `SCHILY.xattr.<name>`.
 */

const XATTR_PREFIX = "SCHILY.xattr.";
/** Values that the kernel takes as C strings. */
const NAMES: ReadonlySet<string> = new Set(["path", "linkpath", "uname", "gname"]);

export type PaxRecords = ReadonlyMap<string, string>;

/** @throws Unknown on records that are none, on a name with a NUL */
export function parsePaxRecords(body: Buffer, where: string): PaxRecords {
  const records = new Map<string, string>();
  /** GNU's sparse format 0.0 repeats these two keys in turn; joined they are its format 0.1. */
  const stretches: string[] = [];
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const digits = space < 0 ? "" : body.toString("latin1", at, space);
    const end = at + Number(digits);
    const isSound = /^[1-9]\d{0,8}$/.test(digits) && end <= body.length && body[end - 1] === 0x0a;
    const equals = isSound ? body.indexOf(0x3d, space) : -1;
    if (equals < 0 || equals >= end || equals === space + 1) throw invalidHeader(where, "broken PAX record");
    const key = body.toString("latin1", space + 1, equals);
    const value = body.toString("latin1", equals + 1, end - 1);
    if (key.includes("\0") || (NAMES.has(key) && value.includes("\0")))
      throw invalidHeader(where, `PAX record ${JSON.stringify(key)} holds a NUL`);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      if ((key === "GNU.sparse.offset") !== (stretches.length % 2 === 0))
        throw invalidHeader(where, "broken sparse map");
      stretches.push(value);
    } else records.set(key, value);
    at = end;
  }
  if (stretches.length > 0) records.set("GNU.sparse.map", stretches.join(","));
  return records;
}

/** Puts what the records say into the header; an empty value means what the header says. @throws Unknown */
export function applyPaxRecords(header: RawHeader, records: PaxRecords): void {
  const xattrs = new Map<string, string>();
  for (const [key, value] of records) {
    if (key.startsWith(XATTR_PREFIX)) {
      xattrs.set(key.slice(XATTR_PREFIX.length), value);
      continue;
    }
    if (value === "") continue;
    const where = `${JSON.stringify(header.name.slice(0, 256))} PAX ${key}`;
    if (key === "path") header.name = value;
    else if (key === "linkpath") header.linkName = value;
    else if (key === "size") header.sizeBytes = integer(value, where);
    else if (key === "uid") header.uid = integer(value, where);
    else if (key === "gid") header.gid = integer(value, where);
    else if (key === "mtime") header.modified = time(value, where);
    else if (key === "atime") header.accessed = time(value, where);
  }
  if (xattrs.size > 0) header.xattrs = xattrs;
}

function integer(value: string, where: string): number {
  const number = /^-?\d{1,19}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw invalidHeader(where, "is no number");
  return number;
}

/** Seconds with a fraction, of which nanoseconds count. */
function time(value: string, where: string): Timespec {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(value);
  if (match === null) throw invalidHeader(where, "is no time");
  const seconds = Number(match[2]);
  const nanoseconds = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { seconds, nanoseconds };
  return nanoseconds === 0
    ? { seconds: -seconds, nanoseconds }
    : { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
