import { create } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Status as RpcStatus } from "#gen/google/rpc/status_pb.ts";
import { BunkerdError, type ErrorCode } from "../model/errors.ts";

/** What a failed call answers. */
export interface Status {
  readonly code: Code;
  readonly message: string;
  readonly details: readonly Any[];
  /** Trailers that a ConnectError brought along. */
  readonly metadata?: Headers;
  /**
   * False for a thrown value that is no expected failure, and for an Internal error that wraps another: whoever answers the
   * call logs it, once, with its stack.
   */
  readonly expected: boolean;
}

/** containerd: `errdefs/pkg/errgrpc`, `ToGRPC`. */
const CODES: Readonly<Record<ErrorCode, Code>> = {
  NotFound: Code.NotFound,
  AlreadyExists: Code.AlreadyExists,
  InvalidArgument: Code.InvalidArgument,
  FailedPrecondition: Code.FailedPrecondition,
  Unavailable: Code.Unavailable,
  Aborted: Code.Aborted,
  OutOfRange: Code.OutOfRange,
  DataLoss: Code.DataLoss,
  DeadlineExceeded: Code.DeadlineExceeded,
  Canceled: Code.Canceled,
  PermissionDenied: Code.PermissionDenied,
  Unauthenticated: Code.Unauthenticated,
  ResourceExhausted: Code.ResourceExhausted,
  Unimplemented: Code.Unimplemented,
  Internal: Code.Internal,
  Unknown: Code.Unknown,
};

const NAMES = new Map<Code, ErrorCode>(
  Object.entries(CODES).map(([name, code]) => [code, name as ErrorCode] as const),
);

/** The class of an error that came with this code (`ToNative` there), and its name in logs and in {@link ObservedCall}. */
export function codeName(code: Code): ErrorCode {
  return NAMES.get(code) ?? "Unknown";
}

/** The one place where an error becomes a status. Whatever is no known failure is Unknown, as grpc-go answers it. */
export function toStatus(error: unknown): Status {
  if (error instanceof BunkerdError) {
    const expected = error.code !== "Internal" || error.cause === undefined;
    return { code: CODES[error.code], message: error.message, details: [], expected };
  }
  if (error instanceof ConnectError) {
    const { code, rawMessage, metadata } = error;
    return { code, message: rawMessage, details: detailsOf(error), metadata, expected: true };
  }
  if (error instanceof Error && error.name === "AbortError") {
    return { code: Code.Canceled, message: "context canceled", details: [], expected: true };
  }
  if (error instanceof Error && error.name === "TimeoutError") {
    return { code: Code.DeadlineExceeded, message: "context deadline exceeded", details: [], expected: true };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: Code.Unknown, message, details: [], expected: false };
}

/** The same failure for Connect's handlers. */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const status = toStatus(error);
  return new ConnectError(status.message, status.code, undefined, undefined, error);
}

/** A status that a server answered, as Connect's clients throw it. */
export function statusError(
  { code, message, details }: Pick<RpcStatus, "code" | "message" | "details">,
  metadata?: Headers,
): ConnectError {
  const error = new ConnectError(message, Code[code] === undefined ? Code.Unknown : code, metadata);
  error.details = details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  error.isWireError = true;
  return error;
}

function detailsOf(error: ConnectError): Any[] {
  return error.details.map((detail) =>
    "desc" in detail
      ? anyPack(detail.desc, create(detail.desc, detail.value))
      : create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value }),
  );
}
