import { BunkerdError, isError } from "../model/errors.ts";
import { isLost } from "../runtime/shim.ts";

/** The promise's result, or an end of the waiting when the signal aborts. @throws Canceled or the signal's BunkerdError */
export function waitFor<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const give = (): void => reject(reasonOf(signal));
    if (signal.aborted) give();
    signal.addEventListener("abort", give, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", give));
  });
}

/** Why a wait is over, as CRI tells it. */
export function reasonOf({ reason }: AbortSignal): BunkerdError {
  if (reason instanceof BunkerdError) return reason;
  const late = reason instanceof Error && reason.name === "TimeoutError";
  return late
    ? new BunkerdError("DeadlineExceeded", "context deadline exceeded", { cause: reason })
    : new BunkerdError("Canceled", "context canceled", { cause: reason });
}

/** Whether a wait has ended because the daemon does: the next one goes on with it. A shim that is lost is no such end. */
export function isDaemonStopping(error: unknown, closing: AbortSignal): boolean {
  return closing.aborted || (isError(error, "Unavailable") && !isLost(error));
}
