import { dirname } from "node:path";
import { type CommitReport, Db } from "../bolt/db.ts";
import { isError } from "../model/errors.ts";
import { createDirectory } from "./directories.ts";

export interface DatabaseOptions {
  /** How long to wait for another process to let go of it (`io.containerd.timeout.bolt.open`); 0: not at all. */
  readonly openTimeoutMs: number;
  readonly onCommit?: ((report: CommitReport) => void) | undefined;
}

const RETRY_MS = 50;

/** @throws Unavailable naming the lock's owner, and what {@link Db.open} throws */
export async function openDatabase(path: string, { openTimeoutMs, onCommit }: DatabaseOptions): Promise<Db> {
  createDirectory("metadata", dirname(path), 0o711);
  const deadline = performance.now() + openTimeoutMs;
  for (;;) {
    try {
      return Db.open(path, onCommit === undefined ? {} : { onCommit });
    } catch (error) {
      if (!isError(error, "Unavailable") || performance.now() >= deadline) throw error;
      await Bun.sleep(RETRY_MS);
    }
  }
}
