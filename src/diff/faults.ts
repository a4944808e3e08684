import { BunkerdError, fail, isError, messageOf } from "../model/errors.ts";
import { EXHAUSTED, errnoOf } from "../model/system-errors.ts";

/** A failure told from further out. System errors have no class, as in containerd, but for what ran out. */
export function diffFailure(context: string, error: unknown): unknown {
  if (isError(error)) return new BunkerdError(error.code, `${context}: ${error.message}`, { cause: error });
  const errno = errnoOf(error);
  if (errno === "") return error;
  const code = EXHAUSTED[errno];
  const message = `${context}: ${messageOf(error)}`;
  return code === undefined
    ? new BunkerdError("Unknown", message, { cause: error })
    : fail(code, message, { cause: error });
}

/** Bytes of a name for a message: one line, quoted, cut. */
export function shownName(name: string): string {
  const bytes = Buffer.from(name.slice(0, 256), "latin1");
  return `${JSON.stringify(bytes.toString())}${name.length > 256 ? `... (${name.length} bytes)` : ""}`;
}
