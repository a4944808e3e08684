import { type BunkerdError, type ErrorCode, fail, isError, messageOf } from "../model/errors.ts";
import { EXHAUSTED, errnoOf } from "../model/system-errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ...EXHAUSTED,
  EFBIG: "ResourceExhausted",
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
