import { BunkerdError } from "../../model/errors.ts";

/** Bodies with the wrong number of messages, worded as grpc-go's `stream.go`, `RecvMsg`. */

export function noMessage(): BunkerdError {
  return new BunkerdError(
    "Internal",
    "cardinality violation: received no request message from non-client-streaming RPC",
  );
}

export function extraMessage(): BunkerdError {
  return new BunkerdError(
    "Internal",
    "cardinality violation: expected <EOF> for non client-streaming RPCs, but received another message",
  );
}

/** The body ended within a message. */
export function truncated(): BunkerdError {
  return new BunkerdError("Internal", "unexpected EOF");
}
