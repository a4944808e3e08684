/** A copy of one snapshot while writers go on (reference: bbolt tx.go, WriteTo). */
import { type FileHandle, open } from "node:fs/promises";
import type { Db } from "./db.ts";
import { writeDraft } from "./draft.ts";
import { damagedPage } from "./faults.ts";
import { encodeMeta } from "./meta.ts";
import type { Snapshot } from "./tx.ts";

const CHUNK_BYTES = 1024 * 1024;

/**
 * Writes the present state of `db` to a new database file at `path`, durably; commits go on meanwhile and are not in it. Returns the copy's bytes.
 * Throws AlreadyExists when `path` is there.
 */
export async function backup(db: Db, path: string): Promise<number> {
  const tx = db.beginRead();
  try {
    await writeDraft(path, async (draft) => {
      const file = await open(draft, "wx", 0o600);
      try {
        await copySnapshot(tx.snapshot, file);
        await file.sync();
      } finally {
        await file.close();
      }
    });
    return tx.sizeBytes;
  } finally {
    tx.close();
  }
}

async function copySnapshot({ store, meta }: Snapshot, target: FileHandle): Promise<void> {
  // Both metas name the same state; the second is older by one, so that a commit that is torn later falls back to it.
  await writeAll(target, encodeMeta(meta, 0), 0);
  await writeAll(target, encodeMeta({ ...meta, txid: Math.max(meta.txid - 1, 0) }, 1), meta.pageSize);
  const end = meta.pageCount * meta.pageSize;
  const buffer = new Uint8Array(Math.max(CHUNK_BYTES, meta.pageSize));
  for (let at = 2 * meta.pageSize; at < end; at += buffer.length) {
    const chunk = buffer.subarray(0, Math.min(buffer.length, end - at));
    const size = store.file.read(chunk, at);
    if (size < chunk.length)
      throw damagedPage(store.file.path, Math.floor((at + size) / meta.pageSize), "is cut off");
    await writeAll(target, chunk, at);
  }
}

async function writeAll(target: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await target.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
