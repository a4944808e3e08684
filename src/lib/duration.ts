/** Go's duration strings (`time.ParseDuration`, `time.Duration.String`), as milliseconds. */

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Go keeps a duration in an int64 of nanoseconds. */
const MAX_DURATION_MS = 2 ** 63 / 1e6;

/** Milliseconds of a text such as `1h30m`, `0`, `-1.5s`; undefined where Go refuses it. */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)(.*)$/.exec(text);
  const rest = match?.[2] ?? "";
  if (rest === "0") return 0;
  if (!/^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(rest)) return undefined;
  let total = 0;
  for (const part of rest.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    total += Number(part[1]) * (UNIT_MS[part[2] ?? ""] ?? Number.NaN);
  }
  if (!(total < MAX_DURATION_MS)) return undefined;
  return match?.[1] === "-" ? -total : total;
}

/** As Go prints it: `4h0m0s`, `1.5s`, `100ms`, `0s`. */
export function formatDuration(durationMs: number): string {
  const sign = durationMs < 0 ? "-" : "";
  const ms = Math.abs(durationMs);
  if (ms === 0) return "0s";
  const trim = (value: number): string => String(Number(value.toFixed(9)));
  if (ms < 1e-3) return `${sign}${trim(ms * 1e6)}ns`;
  if (ms < 1) return `${sign}${trim(ms * 1e3)}µs`;
  if (ms < 1000) return `${sign}${trim(ms)}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  const seconds = `${trim((ms % 60_000) / 1000)}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}` : `${sign}${seconds}`;
}
