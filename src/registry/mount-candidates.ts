import type { Reference } from "../model/references.ts";

/** What a blob's label says where it came from: `containerd.io/distribution.source.<host>` = `repository,repository`. */
const SOURCE_LABEL = "containerd.io/distribution.source.";

/**
 * The repository of the same registry that a blob is best mounted from: the one whose path begins most like the target's, the last of
 * equals (containerd `core/remotes/docker/handler.go`). The label's host has no port.
 */
export function mountCandidate(
  { host, repository }: Reference,
  annotations: Readonly<Record<string, string>>,
): string | undefined {
  const key = `${SOURCE_LABEL}${host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1")}`;
  const value = Object.hasOwn(annotations, key) ? annotations[key] : undefined;
  const target = repository.split("/");
  let best: { readonly source: string; readonly common: number } | undefined;
  for (const source of (value ?? "").split(",")) {
    if (source === "" || source === repository) continue;
    const parts = source.split("/");
    const differs = target.findIndex((part, index) => parts[index] !== part);
    const common = differs < 0 ? target.length : differs;
    if (common >= (best?.common ?? 0)) best = { source, common };
  }
  return best?.source;
}
