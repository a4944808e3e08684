import { type ErrorCode, fail, isError, messageOf } from "../model/errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "ResourceExhausted",
  EDQUOT: "ResourceExhausted",
  EMFILE: "ResourceExhausted",
  ENFILE: "ResourceExhausted",
  ENOMEM: "ResourceExhausted",
};

/** The errno's name, empty if `error` is no system error. */
export function errnoOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === "string" ? code : "";
}

/**
 * A system error told from further out. What the disk or the process has run out of is ResourceExhausted, any other errno has no
 * class, as in containerd; a failure that has a class keeps it.
 */
export function diskFailure(context: string, error: unknown): unknown {
  if (isError(error) || errnoOf(error) === "") return error;
  const code = CODES[errnoOf(error)];
  const message = `${context}: ${messageOf(error)}`;
  return code === undefined ? new Error(message, { cause: error }) : fail(code, message, { cause: error });
}
