import { type BunkerdError, type ErrorCode, fail, isError, messageOf } from "../model/errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "ResourceExhausted",
  EDQUOT: "ResourceExhausted",
  EFBIG: "ResourceExhausted",
  EMFILE: "ResourceExhausted",
  ENFILE: "ResourceExhausted",
  ENOMEM: "ResourceExhausted",
  ENOENT: "NotFound",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  EROFS: "FailedPrecondition",
};

/** A system error of `operation` ("write ingest …"); errnos that are not known mean DataLoss. */
export function contentFailure(operation: string, error: unknown): BunkerdError {
  if (isError(error)) return error;
  return fail(CODES[errnoOf(error)] ?? "DataLoss", `${operation}: ${messageOf(error)}`, { cause: error });
}

export function errnoOf(error: unknown): string {
  return (error as NodeJS.ErrnoException | undefined)?.code ?? "";
}
