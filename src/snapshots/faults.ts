import { fail, messageOf } from "../model/errors.ts";
import { EXHAUSTED, errnoOf } from "../model/system-errors.ts";

/**
 * A system error told from further out. What the disk or the process has run out of is ResourceExhausted, any other errno has no
 * class, as in containerd; a failure that has a class keeps it.
 */
export function diskFailure(context: string, error: unknown): unknown {
  const errno = errnoOf(error);
  if (errno === "") return error;
  const code = EXHAUSTED[errno];
  const message = `${context}: ${messageOf(error)}`;
  return code === undefined ? new Error(message, { cause: error }) : fail(code, message, { cause: error });
}
