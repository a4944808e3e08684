import { Code, ConnectError } from "@connectrpc/connect";
import { BunkerdError, fail } from "../model/errors.ts";
import { codeName } from "../transport/status.ts";

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
  return new BunkerdError(codeName(error.code), error.rawMessage, { cause: error });
}
