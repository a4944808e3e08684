/*
 * Digests as go-digest has them: `<algorithm>:<lower-case hexadecimal>`. What passes {@link digestFault} is safe as two
 * components of a path.
 */

/** Algorithms and the length of their sums in hexadecimal; those that containerd's build of go-digest has. */
const SUM_CHARACTERS = { sha256: 64, sha384: 96, sha512: 128 } as const;

export type DigestAlgorithm = keyof typeof SUM_CHARACTERS;

/** What content is stored under when nobody asks for another: go-digest's `Canonical`. */
export const CANONICAL_ALGORITHM: DigestAlgorithm = "sha256";

const DIGEST = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const SUM = /^[a-f0-9]+$/;

/** Why a text is no digest, in go-digest's words and in the order of its checks; undefined for a digest. */
export function digestFault(digest: string): string | undefined {
  const colon = digest.indexOf(":");
  if (colon <= 0 || colon + 1 === digest.length) return "invalid checksum digest format";
  const algorithm = algorithmOf(digest);
  if (algorithm === undefined) {
    return DIGEST.test(digest) ? "unsupported digest algorithm" : "invalid checksum digest format";
  }
  const sum = digest.slice(colon + 1);
  if (Buffer.byteLength(sum) !== SUM_CHARACTERS[algorithm]) return "invalid checksum digest length";
  return SUM.test(sum) ? undefined : "invalid checksum digest format";
}

/** The algorithm before the colon; undefined if it is none that we can compute. */
export function algorithmOf(digest: string): DigestAlgorithm | undefined {
  const name = digest.slice(0, Math.max(digest.indexOf(":"), 0));
  return Object.hasOwn(SUM_CHARACTERS, name) ? (name as DigestAlgorithm) : undefined;
}
