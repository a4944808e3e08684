import { BunkerdError } from "../model/errors.ts";

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

function reasonOf({ reason }: AbortSignal): BunkerdError {
  if (reason instanceof BunkerdError) return reason;
  const late = reason instanceof Error && reason.name === "TimeoutError";
  return late
    ? new BunkerdError("DeadlineExceeded", "context deadline exceeded", { cause: reason })
    : new BunkerdError("Canceled", "context canceled", { cause: reason });
}
