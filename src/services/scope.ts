import type { HandlerContext } from "@connectrpc/connect";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";

/** containerd `pkg/namespaces/grpc.go`. */
const NAMESPACE_HEADER = "containerd-namespace";
/** containerd `core/leases/grpc.go`. */
const LEASE_HEADER = "containerd-lease";

/** What the call's headers say. @throws FailedPrecondition without a namespace, InvalidArgument on a malformed one */
export function scopeOf(context: HandlerContext): Scope {
  const namespace = requireNamespace(firstValue(context, NAMESPACE_HEADER));
  return new CallScope(namespace, firstValue(context, LEASE_HEADER), context);
}

class CallScope implements Scope {
  readonly namespace: string;
  readonly lease: string | undefined;
  readonly #context: HandlerContext;

  constructor(namespace: string, lease: string | undefined, context: HandlerContext) {
    this.namespace = namespace;
    this.lease = lease;
    this.#context = context;
  }

  /** Most stores answer at once and never ask for it; gRPC makes one when it is asked. */
  get signal(): AbortSignal {
    return this.#context.signal;
  }
}

/** The namespace as sent, empty if none was: for what checks it itself. */
export function namespaceOf(context: HandlerContext): string {
  return firstValue(context, NAMESPACE_HEADER) ?? "";
}

/** Go clients that set a value twice send it twice, the newest first, and the first counts; Headers join them with ", ". */
function firstValue(context: HandlerContext, name: string): string | undefined {
  const value = context.requestHeader.get(name) ?? undefined;
  const comma = value?.indexOf(", ") ?? -1;
  return comma < 0 ? value : value?.slice(0, comma);
}
