import { createHash } from "node:crypto";
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { formatRfc3339, parseRfc3339 } from "../lib/rfc3339.ts";
import type { IngestStatus } from "../model/content.ts";
import { fail } from "../model/errors.ts";

/*
 * One ingest on disk (containerd `plugins/content/local`): a folder named by the SHA-256 of its ref, which holds `data`, `ref`,
 * `startedat` and `updatedat` (RFC 3339) and, if it is known, `total` in decimal.
 */

export interface IngestPaths {
  readonly folder: string;
  readonly data: string;
  readonly ref: string;
  readonly startedAt: string;
  readonly updatedAt: string;
  readonly total: string;
}

/** The name is of fixed length and holds nothing of the ref, which may be any text. */
export function ingestPaths(ingestRoot: string, ref: string): IngestPaths {
  return pathsIn(join(ingestRoot, createHash("sha256").update(ref).digest("hex")));
}

export function pathsIn(folder: string): IngestPaths {
  const at = (name: string): string => join(folder, name);
  return {
    folder,
    data: at("data"),
    ref: at("ref"),
    startedAt: at("startedat"),
    updatedAt: at("updatedat"),
    total: at("total"),
  };
}

/** Reads the files. @throws what reading throws, and DataLoss if a time is none or the ref is another's */
export async function readIngest(paths: IngestPaths, expectedRef: string): Promise<IngestStatus> {
  const data = await stat(paths.data, { bigint: true });
  const [ref, startedAt, writtenAt, totalBytes] = await Promise.all([
    readFile(paths.ref, "utf8"),
    readTime(paths.startedAt),
    readTime(paths.updatedAt),
    readTotal(paths.total),
  ]);
  if (ref !== expectedRef) throw fail("DataLoss", `ref key does not match: ${expectedRef} != ${ref}`);
  // `updatedat` is only written when a writer closes.
  const updatedAt = later(data.mtimeNs, writtenAt);
  return { ref, offsetBytes: Number(data.size), totalBytes, startedAt, updatedAt };
}

function later(one: bigint, other: bigint): bigint {
  if (one > other) return one;
  return other;
}

/** Writes all but the data of a new ingest. */
export async function writeIngest(
  paths: IngestPaths,
  { ref, totalBytes, startedAt }: IngestStatus,
): Promise<void> {
  const time = formatRfc3339(startedAt);
  await Promise.all([
    writeFile(paths.ref, ref),
    writeFile(paths.startedAt, time),
    writeFile(paths.updatedAt, time),
    ...(totalBytes > 0n ? [writeFile(paths.total, String(totalBytes))] : []),
  ]);
}

/** Replaces `updatedat` in one step, so that a reader never sees half of it. */
export async function writeUpdatedAt(paths: IngestPaths, updatedAt: bigint): Promise<void> {
  const draft = `${paths.updatedAt}.tmp`;
  await writeFile(draft, formatRfc3339(updatedAt));
  await rename(draft, paths.updatedAt);
}

async function readTime(path: string): Promise<bigint> {
  const time = parseRfc3339(await readFile(path, "utf8"));
  if (time === undefined) throw fail("DataLoss", `could not parse timestamp file ${path}`);
  return time;
}

/** 0 where there is none, and where it is unreadable: it is a hint. */
async function readTotal(path: string): Promise<bigint> {
  const text = await readFile(path, "utf8").catch(() => "0");
  return /^\d{1,19}$/.test(text) ? BigInt(text) : 0n;
}
