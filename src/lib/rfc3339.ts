/** Times as Go's `time.RFC3339Nano` writes them, in nanoseconds since 1970. */

const NANOSECONDS_PER_SECOND = 1_000_000_000n;
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/;

/** UTC, with as many digits of the fraction as it needs. */
export function formatRfc3339(nanoseconds: bigint): string {
  const nanos = ((nanoseconds % NANOSECONDS_PER_SECOND) + NANOSECONDS_PER_SECOND) % NANOSECONDS_PER_SECOND;
  const seconds = Number((nanoseconds - nanos) / NANOSECONDS_PER_SECOND);
  const whole = new Date(seconds * 1000).toISOString().slice(0, -".000Z".length);
  const fraction = String(nanos).padStart(9, "0").replace(/0+$/, "");
  return `${whole}${fraction === "" ? "" : `.${fraction}`}Z`;
}

/** In any zone; undefined for what is no time. */
export function parseRfc3339(text: string): bigint | undefined {
  const [, whole, fraction = "", zone] = TIME.exec(text) ?? [];
  if (whole === undefined || zone === undefined) return undefined;
  const milliseconds = Date.parse(`${whole}${zone}`);
  if (Number.isNaN(milliseconds)) return undefined;
  return BigInt(milliseconds) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
