import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fail, quote } from "../model/errors.ts";

/** What Go's `uuid.Parse` takes: plain, `urn:uuid:`, in braces, or 32 hex digits. */
const UUID =
  /^(?:(?:urn:uuid:)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\{[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\}|[0-9a-f]{32})$/i;

/**
 * The UUID in `<directory>/uuid`, made durable there on the first call. The file is containerd's, so that the server
 * keeps its UUID whichever of the two runs. Read each time: containerd does, and whoever resets it need not restart us.
 * @throws DataLoss naming the file if it holds something else
 */
export function serverUuid(directory: string): string {
  const path = join(directory, "uuid");
  const stored = readIfExists(path);
  // An empty file is what a crash leaves of containerd's write.
  if (stored === undefined || stored === "") return createUuid(directory, path);
  if (!UUID.test(stored)) throw fail("DataLoss", `server UUID in ${path} is ${quote(stored)}`);
  return stored;
}

function readIfExists(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function createUuid(directory: string, path: string): string {
  const uuid = randomUUID();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const temporary = `${path}.new`;
  const file = openSync(temporary, "w", 0o644);
  try {
    writeSync(file, uuid);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
  syncDirectory(directory);
  return uuid;
}

function syncDirectory(directory: string): void {
  const handle = openSync(directory, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
