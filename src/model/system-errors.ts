import { type ErrorCode, isError } from "./errors.ts";

/** The errno's name, empty if `error` is no system error. */
export function errnoOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === "string" && !isError(error) ? code : "";
}

/** What the disk, the process or the machine has run out of has one class, whatever was being done. */
export const EXHAUSTED: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "ResourceExhausted",
  EDQUOT: "ResourceExhausted",
  EMFILE: "ResourceExhausted",
  ENFILE: "ResourceExhausted",
  ENOMEM: "ResourceExhausted",
};
