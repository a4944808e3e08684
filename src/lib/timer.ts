/** setTimeout's limit in milliseconds, some 25 days: it fires at once for what is longer. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** setTimeout for times that callers choose: what is longer than {@link MAX_TIMER_MS} never fires. */
export function startTimer(run: () => void, delayMs: number): ReturnType<typeof setTimeout> | undefined {
  return delayMs > MAX_TIMER_MS ? undefined : setTimeout(run, Math.max(0, Math.ceil(delayMs)));
}

/** AbortSignal.timeout for times that callers choose, up to as many milliseconds as it takes. */
export function abortAfter(delayMs: number): AbortSignal {
  return AbortSignal.timeout(Math.min(Math.max(0, delayMs), Number.MAX_SAFE_INTEGER));
}
