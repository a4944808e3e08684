/** Times as Go's `time.RFC3339Nano` writes them, in nanoseconds since 1970. */

const NANOSECONDS_PER_SECOND = 1_000_000_000n;
const TIME = /^(\d{4}-\d\d-(\d\d))T(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))$/;

/** UTC, with as many digits of the fraction as it needs. */
export function formatRfc3339(nanoseconds: bigint): string {
  const nanos = ((nanoseconds % NANOSECONDS_PER_SECOND) + NANOSECONDS_PER_SECOND) % NANOSECONDS_PER_SECOND;
  const seconds = Number((nanoseconds - nanos) / NANOSECONDS_PER_SECOND);
  const whole = new Date(seconds * 1000).toISOString().slice(0, -".000Z".length);
  const fraction = String(nanos).padStart(9, "0").replace(/0+$/, "");
  return `${whole}${fraction === "" ? "" : `.${fraction}`}Z`;
}

/**
 * In any zone; undefined for what is no time. As Go's `time.Parse` reads: no day that the month has not and no hour 24, but an hour
 * of one digit, and zones up to 24:60.
 */
export function parseRfc3339(text: string): bigint | undefined {
  const match = TIME.exec(text);
  if (match === null) return undefined;
  const [, date = "", day, hour, minute, second, fraction = "", sign, zoneHours = 0, zoneMinutes = 0] = match;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return undefined;
  if (Number(zoneHours) > 24 || Number(zoneMinutes) > 60) return undefined;
  const midnight = new Date(`${date}T00:00:00Z`);
  // Otherwise the 30th of February is the 2nd of March.
  if (midnight.getUTCDate() !== Number(day)) return undefined;
  const zone = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60 * (sign === "-" ? -1 : 1);
  const seconds = (Number(hour) * 60 + Number(minute)) * 60 + Number(second) - zone;
  return (
    BigInt(midnight.getTime()) * 1_000_000n +
    BigInt(seconds) * NANOSECONDS_PER_SECOND +
    BigInt(fraction.padEnd(9, "0"))
  );
}
