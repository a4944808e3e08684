/** madvise(2) on the process's own mappings. */
import { dlopen, FFIType } from "bun:ffi";
import { readFileSync } from "node:fs";
import { appendedPages } from "./appended.ts";

const MADV_DONTNEED = 4;
/** bits/confname.h. */
const SC_PAGESIZE = 30;

export interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly residentKb: number;
}

/**
 * Mappings of files, read-only, of which no page was ever written: their pages can be dropped without loss, the next
 * touch takes them from the page cache. `smaps` is the text of /proc/self/smaps (proc_pid_smaps(5)).
 */
export function droppableMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  const header = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9]\d* +\/.*$/;
  const sections = smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  for (const section of sections) {
    const match = header.exec(section.slice(0, section.indexOf("\n")));
    const number = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(section)?.[1] ?? "NaN");
    // Relocated constants are read-only now but were written: dropping those would lose them.
    if (
      match === null ||
      number("Anonymous") !== 0 ||
      number("Private_Dirty") !== 0 ||
      number("Locked") !== 0
    )
      continue;
    found.push({ start: BigInt(`0x${match[1]}`), end: BigInt(`0x${match[2]}`), residentKb: number("Rss") });
  }
  return found;
}

function openLibc() {
  return dlopen("libc.so.6", {
    madvise: { args: [FFIType.u64, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
    sysconf: { args: [FFIType.i32], returns: FFIType.i64_fast },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Gives back the code that only the start has run: tens of megabytes of the runtime and of this program are touched once and never
 * again. What is needed after all comes back by minor faults, sixteen pages at a time: so nothing else runs once the first is
 * dropped. Answers the KiB that were resident in what was dropped.
 */
export function dropCleanFilePages(): number {
  libc ??= openLibc();
  const drop = libc.madvise;
  const appended = appendedPages(Number(libc.sysconf(SC_PAGESIZE)));
  const mappings = droppableMappings(readFileSync("/proc/self/smaps", "utf8"));
  let droppedKb = 0;
  for (const { start, end } of appended) {
    if (drop(BigInt(start), BigInt(end - start), MADV_DONTNEED) === 0) droppedKb += (end - start) >> 10;
  }
  for (const { start, end, residentKb } of mappings) {
    if (drop(start, end - start, MADV_DONTNEED) === 0) droppedKb += residentKb;
  }
  return droppedKb;
}
