import { digestFault } from "../../model/digests.ts";

/** An image's names as CRI tells them: `RepoTags` and `RepoDigests`; an id is neither. */
export function splitReferences(references: readonly string[]): { tags: string[]; digests: string[] } {
  const names = references.filter((name) => digestFault(name) !== undefined);
  return {
    tags: names.filter((name) => !name.includes("@") && /:[^/]+$/.test(name)),
    digests: names.filter((name) => name.includes("@")),
  };
}
