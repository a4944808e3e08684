import { digestFault } from "../../model/digests.ts";

/** An image's names as CRI tells them: `RepoTags` and `RepoDigests`; an id is neither. */
export function splitReferences(references: readonly string[]): { tags: string[]; digests: string[] } {
  const names = references.filter((name) => digestFault(name) !== undefined);
  return {
    tags: names.filter((name) => !name.includes("@") && /:[^/]+$/.test(name)),
    digests: names.filter((name) => name.includes("@")),
  };
}

/** Order of an image's names, the first of which is its name in records: what tells more stands before (distribution's `reference.Sort`). */
export function byInformation(a: string, b: string): number {
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

/** Tag and digest, tag, digest, neither; an id last. */
function rank(name: string): number {
  if (digestFault(name) === undefined) return 4;
  const [repository = "", digest] = name.split("@");
  if (/:[^/]+$/.test(repository)) return digest === undefined ? 1 : 0;
  return digest === undefined ? 3 : 2;
}
