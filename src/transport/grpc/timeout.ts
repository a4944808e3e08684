import { BunkerdError, quote } from "../../model/errors.ts";

const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/**
 * Milliseconds of a `grpc-timeout`: at most 8 digits and a unit (gRPC's PROTOCOL-HTTP2.md, "Timeout").
 * @throws Internal, worded as grpc-go's `internal/transport/http_util.go` words it
 */
export function parseTimeout(value: string): number {
  if (value.length < 2) throw malformed(`transport: timeout string is too short: ${quote(value)}`);
  if (value.length > 9) throw malformed(`transport: timeout string is too long: ${quote(value)}`);
  const digits = value.slice(0, -1);
  const unitMs = UNIT_MS[value.slice(-1)];
  if (unitMs === undefined) throw malformed(`transport: timeout unit is not recognized: ${quote(value)}`);
  if (!/^\d+$/.test(digits)) throw malformed(`strconv.ParseUint: parsing ${quote(digits)}: invalid syntax`);
  return Number(digits) * unitMs;
}

/** A `grpc-timeout` of at least so many milliseconds, in the finest unit that 8 digits have room for from milliseconds on. */
export function encodeTimeout(timeoutMs: number): string {
  for (const unit of ["m", "S", "M"]) {
    const value = Math.ceil(timeoutMs / (UNIT_MS[unit] ?? 1));
    if (value < 1e8) return `${value}${unit}`;
  }
  return `${Math.min(Math.ceil(timeoutMs / 3_600_000), 99_999_999)}H`;
}

function malformed(what: string): BunkerdError {
  return new BunkerdError("Internal", `malformed grpc-timeout: ${what}`);
}
