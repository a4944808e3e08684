/**
 * The one error class of the house. `transport/` turns it into a gRPC status or a Connect error, once.
 * The classes and their words are those of containerd's errdefs (`github.com/containerd/errdefs`).
 */
export type ErrorCode =
  | "NotFound"
  | "AlreadyExists"
  | "InvalidArgument"
  | "FailedPrecondition"
  | "Unavailable"
  | "Aborted"
  | "OutOfRange"
  | "DataLoss"
  | "DeadlineExceeded"
  | "Canceled"
  | "PermissionDenied"
  | "Unauthenticated"
  | "ResourceExhausted"
  | "Unimplemented"
  | "Internal";

/** What containerd writes behind the last colon of a message. */
const ERROR_WORDS: Readonly<Record<ErrorCode, string>> = {
  NotFound: "not found",
  AlreadyExists: "already exists",
  InvalidArgument: "invalid argument",
  FailedPrecondition: "failed precondition",
  Unavailable: "unavailable",
  Aborted: "aborted",
  OutOfRange: "out of range",
  DataLoss: "data loss",
  DeadlineExceeded: "deadline exceeded",
  Canceled: "canceled",
  PermissionDenied: "permission denied",
  Unauthenticated: "unauthenticated",
  ResourceExhausted: "resource exhausted",
  Unimplemented: "not implemented",
  Internal: "internal",
};

/** An expected failure. `message` names the operation, the object and the namespace and ends in the class's words. */
export class BunkerdError extends Error {
  override readonly name = "BunkerdError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Builds a {@link BunkerdError} worded as containerd words a wrapped sentinel:
 * `fail("NotFound", 'container "web" in namespace "default"')` reads `container "web" in namespace "default": not found`.
 */
export function fail(code: ErrorCode, subject: string, options?: ErrorOptions): BunkerdError {
  return new BunkerdError(code, `${subject}: ${ERROR_WORDS[code]}`, options);
}

/** True for a {@link BunkerdError}, of that class where `code` is given. */
export function isError(value: unknown, code?: ErrorCode): value is BunkerdError {
  return value instanceof BunkerdError && (code === undefined || value.code === code);
}

/** The text of whatever was thrown. */
export function messageOf(value: unknown): string {
  return value instanceof Error ? value.message : String(value);
}

/** Quotes a string as Go's `%q` does, so that hostile ids stay on one line of a message. */
export function quote(text: string): string {
  return JSON.stringify(text);
}
