/** Kubernetes' quantities: `1k`, `1.5Mi`, `2e3` (`k8s.io/apimachinery`, `pkg/api/resource`). */

/** Powers of ten, or of two where there is an `i`. */
const DECIMAL: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  "": 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const BINARY: Readonly<Record<string, number>> = { Ki: 10, Mi: 20, Gi: 30, Ti: 40, Pi: 50, Ei: 60 };

const QUANTITY = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3})|([numkMGTPE]?i?))$/;
const MAX_CHARACTERS = 64;

/** Rounded up to a whole number, as `Quantity.Value()`; undefined if the text is no quantity. */
export function quantityValue(text: string): number | undefined {
  const match = text.length > MAX_CHARACTERS ? null : QUANTITY.exec(text);
  if (match === null) return undefined;
  const [, sign, whole = "", fraction = "", exponent, suffix = ""] = match;
  const digits = whole + fraction;
  const bits = Object.hasOwn(BINARY, suffix) ? BINARY[suffix] : 0;
  const tens = exponent === undefined ? (bits === 0 ? DECIMAL[suffix] : 0) : Number(exponent);
  if (digits === "" || bits === undefined || tens === undefined) return undefined;
  const power = tens - fraction.length;
  const numerator = (BigInt(`${digits}`) << BigInt(bits)) * 10n ** BigInt(Math.max(power, 0));
  const denominator = 10n ** BigInt(Math.max(-power, 0));
  const value = sign === "-" ? -(numerator / denominator) : (numerator + denominator - 1n) / denominator;
  return Number(value);
}
