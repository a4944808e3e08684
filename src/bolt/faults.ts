/** How the engine words what goes wrong with a file. */
import { type BunkerdError, type ErrorCode, fail, isError, messageOf } from "../model/errors.ts";
import { EXHAUSTED, errnoOf } from "../model/system-errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ...EXHAUSTED,
  EFBIG: "ResourceExhausted",
  ENOENT: "NotFound",
  ENOTDIR: "NotFound",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  EROFS: "FailedPrecondition",
  EISDIR: "InvalidArgument",
  ELOOP: "InvalidArgument",
  ENAMETOOLONG: "InvalidArgument",
  ENXIO: "InvalidArgument",
};

/** A system error of `operation` ("write of 3 pages at page 17") on the database file; errnos that are not known mean DataLoss. */
export function fileFailure(path: string, operation: string, error: unknown): BunkerdError {
  if (isError(error)) return error;
  return fail(
    CODES[errnoOf(error)] ?? "DataLoss",
    `${operation} of database "${path}": ${messageOf(error)}`,
    {
      cause: error,
    },
  );
}

/** A page that is not what the file says of it. */
export function damagedPage(path: string, id: number, what: string): BunkerdError {
  return fail("DataLoss", `database "${path}" is damaged: page ${id} ${what}`);
}

/** The same of the file as a whole. */
export function damagedFile(path: string, what: string): BunkerdError {
  return fail("DataLoss", `database "${path}" is damaged: ${what}`);
}
