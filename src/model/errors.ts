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
  | "Internal"
  /** Somebody else's failure that has no class, such as what runc says; passed on as it came. */
  | "Unknown";

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
  Unknown: "unknown",
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

/**
 * The same failure told from further out, as Go's `fmt.Errorf("%s: %w", context, err)`. What is no {@link BunkerdError}
 * is returned as it came: it is a defect, and keeps its stack.
 */
export function within(context: string, error: unknown): unknown {
  return error instanceof BunkerdError
    ? new BunkerdError(error.code, `${context}: ${error.message}`, { cause: error })
    : error;
}

/** True for a {@link BunkerdError}, of that class where `code` is given. */
export function isError(value: unknown, code?: ErrorCode): value is BunkerdError {
  return value instanceof BunkerdError && (code === undefined || value.code === code);
}

/** The text of whatever was thrown. */
export function messageOf(value: unknown): string {
  return value instanceof Error ? value.message : String(value);
}

/** How many characters of a text {@link quote} repeats. */
const MAX_QUOTED_CHARACTERS = 256;

/** Quotes a string as Go's `%q` does, so that hostile ids stay on one line of a message; cuts what is too long to read. */
export function quote(text: string): string {
  const cut = text.length > MAX_QUOTED_CHARACTERS;
  const quoted = JSON.stringify(cut ? text.slice(0, MAX_QUOTED_CHARACTERS) : text)
    .replaceAll(/\\\\|\\u00([01][0-9a-f])/g, goControlEscape)
    .replaceAll(/[\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, goRuneEscape);
  return cut ? `${quoted}... (${text.length} characters)` : quoted;
}

/** The same without the quotes, where the reference writes a name bare (`%v`); with them where the name would not stay one line. */
export function unquoted(text: string): string {
  const quoted = quote(text);
  return quoted === `"${text}"` ? text : quoted;
}

/** JSON's escape of a control character as Go's; an escaped backslash stays. */
function goControlEscape(written: string, hex: string | undefined): string {
  if (hex === undefined) return written;
  if (hex === "07") return "\\a";
  if (hex === "0b") return "\\v";
  return `\\x${hex}`;
}

function goRuneEscape(rune: string): string {
  const code = rune.charCodeAt(0);
  return code === 0x7f ? "\\x7f" : `\\u${code.toString(16).padStart(4, "0")}`;
}
