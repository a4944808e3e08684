/** A file that appears under its name only when it is whole. */
import { linkSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { fail } from "../model/errors.ts";
import { fileFailure } from "./faults.ts";
import { syncDirectory } from "./page-file.ts";

/**
 * Lets `write` make the file under a draft's name and links it to `path`. Throws AlreadyExists when `path` is there; the draft is gone in any case.
 * `write` makes its content durable.
 */
export async function writeDraft(path: string, write: (draft: string) => Promise<void>): Promise<void> {
  const draft = `${path}.new-${process.pid}`;
  try {
    await write(draft);
    linkSync(draft, path);
    syncDirectory(dirname(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw fail("AlreadyExists", `file "${path}"`);
    throw fileFailure(path, "write", error);
  } finally {
    removeIfThere(draft);
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
