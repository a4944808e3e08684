import { closeSync, constants, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "../lib/log.ts";
import { makeNode } from "../linux/inode.ts";
import { messageOf } from "../model/errors.ts";

export interface ShimLog {
  /** Resolves when nothing of it is open any more. */
  close(): Promise<void>;
}

const FIFO = 0o010000;
const MODE = 0o700;
/** A line is cut there: whoever writes without newlines must not fill our memory. */
const MAX_LINE_BYTES = 16 << 10;

/**
 * Reads the FIFO `log` of a bundle, which its shim writes to, until it is closed: a shim that nobody reads would block. Its lines
 * go to our log as details, complaints as warnings. Opened for both directions, so that a shim may come and go
 * (`core/runtime/v2/shim_unix.go`, `openShimLog`). @throws ErrnoException
 */
export function openShimLog(bundlePath: string, logger: Logger): ShimLog {
  const path = join(bundlePath, "log");
  if (!existsSync(path)) makeNode(path, FIFO | MODE, 0n);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const reader = Bun.file(fd).stream().getReader();
  let closed: Promise<void> | undefined;
  const copied = copyLines(reader, logger).catch((error: unknown) => {
    if (closed === undefined) logger.error("copy shim log", { error: messageOf(error) });
  });
  return {
    close() {
      closed ??= reader
        .cancel()
        // A stream that has failed needs no cancelling; its failure is logged above.
        .catch(() => undefined)
        .then(() => copied)
        .then(() => closeSync(fd));
      return closed;
    },
  };
}

interface LogReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
}

async function copyLines(reader: LogReader, logger: Logger): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_LINE_BYTES) {
      lines.push(rest.slice(0, MAX_LINE_BYTES));
      rest = "";
    }
    for (const line of lines) if (line !== "") tell(line, logger);
  }
}

/** Shims write as logrus does. */
function tell(line: string, logger: Logger): void {
  if (/(?:^|\s)level=(?:warning|error|fatal|panic)\b/.test(line)) logger.warn("shim", { line });
  else logger.debug("shim", { line });
}
