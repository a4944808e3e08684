import { getSystemErrorMessage } from "node:util";
import { BunkerdError, messageOf } from "../../model/errors.ts";

/** What a system call failed with, as Go words it: `open /x: no such file or directory`. Anything else is its own message. */
export function systemReason(error: unknown): string {
  const { syscall, path, errno } = error as NodeJS.ErrnoException;
  // Those of `linux/` have Go's words already, and no path.
  if (path === undefined || syscall === undefined || errno === undefined) return messageOf(error);
  return `${syscall} ${path}: ${getSystemErrorMessage(errno)}`;
}

/** The same as an error that is told from further out; one that has its words already keeps them. */
export function systemError(error: unknown, context = ""): BunkerdError {
  if (error instanceof BunkerdError) return error;
  return new BunkerdError("Unknown", `${context}${systemReason(error)}`, { cause: error });
}
