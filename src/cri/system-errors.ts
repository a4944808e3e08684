import { errnoWords } from "../linux/errno.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";

/** What a system call failed with, as Go words it: `open /x: no such file or directory`. Anything else is its own message. */
export function systemReason(error: unknown): string {
  const { syscall, path = "", errno, code } = error as NodeJS.ErrnoException;
  const message = messageOf(error);
  // A path with a NUL; Node's words would tell of arguments.
  if (code === "ERR_INVALID_ARG_VALUE") return "invalid argument";
  // Those of `linux/` have Go's words already.
  if (syscall === undefined || errno === undefined || !message.startsWith(`${code}: `)) return message;
  return `${syscall} ${path}: ${errnoWords(errno)}`;
}

/** The same as an error that is told from further out; one that has its words already keeps them. */
export function systemError(error: unknown, context = ""): BunkerdError {
  if (error instanceof BunkerdError) return error;
  return new BunkerdError("Unknown", `${context}${systemReason(error)}`, { cause: error });
}
