/** `k8s.io/apimachinery/pkg/api/resource`: quantities as exact fractions of bigint. */

const POWERS: Readonly<Record<string, readonly [bigint, bigint]>> = {
  n: [1n, 1_000_000_000n],
  u: [1n, 1_000_000n],
  m: [1n, 1_000n],
  "": [1n, 1n],
  k: [10n ** 3n, 1n],
  M: [10n ** 6n, 1n],
  G: [10n ** 9n, 1n],
  T: [10n ** 12n, 1n],
  P: [10n ** 15n, 1n],
  E: [10n ** 18n, 1n],
  Ki: [1n << 10n, 1n],
  Mi: [1n << 20n, 1n],
  Gi: [1n << 30n, 1n],
  Ti: [1n << 40n, 1n],
  Pi: [1n << 50n, 1n],
  Ei: [1n << 60n, 1n],
};

interface Fraction {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

function parse(text: string): Fraction {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d+))?$/.exec(text);
  if (match === null) throw new Error(`quantity ${text}`);
  const [, sign, whole = "", part = "", suffix = "", exponent = "0"] = match;
  const [multiplier, divisor] = POWERS[suffix] ?? [1n, 1n];
  const power = BigInt(Math.min(Math.abs(Number(exponent)), 40));
  const grows = !exponent.startsWith("-");
  const digits = BigInt(`${whole}${part}` || "0") * (sign === "-" ? -1n : 1n);
  return {
    numerator: digits * multiplier * (grows ? 10n ** power : 1n),
    denominator: 10n ** BigInt(part.length) * divisor * (grows ? 1n : 10n ** power),
  };
}

function ceiling(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator;
  return numerator % denominator > 0n ? quotient + 1n : quotient;
}

/** `Quantity.Value()`: whole units, rounded up. */
export function wholeValueOf(text: string): bigint {
  const { numerator, denominator } = parse(text);
  return ceiling(numerator, denominator);
}

/** `Quantity.MilliValue()`: thousandths, rounded up. */
export function milliValueOf(text: string): bigint {
  const { numerator, denominator } = parse(text);
  return ceiling(numerator * 1000n, denominator);
}

/** Below 0, 0, above 0 as `left` is less, the same, more. */
export function compareQuantities(left: string, right: string): number {
  const [a, b] = [parse(left), parse(right)];
  const difference = a.numerator * b.denominator - b.numerator * a.denominator;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/** `left / right`, rounded up: what a resourceFieldRef's divisor makes of a value. */
export function divideQuantities(left: string, right: string): bigint {
  const [a, b] = [parse(left), parse(right)];
  if (b.numerator === 0n) return wholeValueOf(left);
  return ceiling(a.numerator * b.denominator, a.denominator * b.numerator);
}

/** The sum, as a quantity of thousandths if it is no whole number. */
export function addQuantities(left: string, right: string): string {
  const milli = milliValueOf(left) + milliValueOf(right);
  return milli % 1000n === 0n ? String(milli / 1000n) : `${milli}m`;
}
