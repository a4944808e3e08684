import { Code, ConnectError } from "@connectrpc/connect";
import { BunkerdError, type ErrorCode, fail } from "../model/errors.ts";

/** containerd: `errdefs/pkg/errgrpc`, `ToNative`. Unknown has no class of its own here: it is somebody else's defect. */
const ERROR_CODES: Readonly<Record<Code, ErrorCode>> = {
  [Code.Canceled]: "Canceled",
  [Code.Unknown]: "Internal",
  [Code.InvalidArgument]: "InvalidArgument",
  [Code.DeadlineExceeded]: "DeadlineExceeded",
  [Code.NotFound]: "NotFound",
  [Code.AlreadyExists]: "AlreadyExists",
  [Code.PermissionDenied]: "PermissionDenied",
  [Code.ResourceExhausted]: "ResourceExhausted",
  [Code.FailedPrecondition]: "FailedPrecondition",
  [Code.Aborted]: "Aborted",
  [Code.OutOfRange]: "OutOfRange",
  [Code.Unimplemented]: "Unimplemented",
  [Code.Internal]: "Internal",
  [Code.Unavailable]: "Unavailable",
  [Code.DataLoss]: "DataLoss",
  [Code.Unauthenticated]: "Unauthenticated",
};

/** Failures of the caller's own making, told by the transport: everything else that is no status is a broken connection. */
const CALLERS_OWN: readonly Code[] = [
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.InvalidArgument,
];

/**
 * What a failed call throws: the server's status with its code and message, word for word; Canceled, DeadlineExceeded or
 * ResourceExhausted for the caller's own signal, timeout and message sizes; else Unavailable naming the address.
 */
export function fromConnectError(error: unknown, address: string): unknown {
  if (!(error instanceof ConnectError)) return error;
  if (!error.isWireError && !CALLERS_OWN.includes(error.code)) {
    return fail("Unavailable", `connection to ${address}: ${error.rawMessage}`, { cause: error });
  }
  return new BunkerdError(ERROR_CODES[error.code], error.rawMessage, { cause: error });
}
