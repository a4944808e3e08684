import type { HandlerContext } from "@connectrpc/connect";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";

/** containerd `pkg/namespaces/grpc.go`. */
const NAMESPACE_HEADER = "containerd-namespace";
/** containerd `core/leases/grpc.go`. */
const LEASE_HEADER = "containerd-lease";

/** What the call's headers say. @throws FailedPrecondition without a namespace, InvalidArgument on a malformed one */
export function scopeOf(context: HandlerContext): Scope {
  return {
    namespace: requireNamespace(firstValue(context, NAMESPACE_HEADER)),
    lease: firstValue(context, LEASE_HEADER),
    // Most stores answer at once and never ask for it; gRPC makes one when it is asked.
    get signal() {
      return context.signal;
    },
  };
}

/** The namespace as sent, empty if none was: for what checks it itself. */
export function namespaceOf(context: HandlerContext): string {
  return firstValue(context, NAMESPACE_HEADER) ?? "";
}

/** Go clients that set a value twice send it twice, the newest first, and the first counts; Headers join them with ", ". */
function firstValue(context: HandlerContext, name: string): string | undefined {
  return context.requestHeader.get(name)?.split(", ", 1)[0];
}
