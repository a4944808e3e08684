/** Which fields of a pod a container may be told: Kubernetes' `pkg/fieldpath` and `validateObjectFieldSelector`. */
import { nearest } from "../../lib/nearest.ts";

const BOTH = ["metadata.name", "metadata.namespace", "metadata.uid"];
const ENV = [...BOTH, "spec.nodeName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"];
const VOLUME = [...BOTH, "metadata.labels", "metadata.annotations"];

/** `metadata.labels['app']` */
export function subscriptOf(path: string): { field: "labels" | "annotations"; key: string } | undefined {
  const match = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path);
  return match === null ? undefined : { field: match[1] as "labels" | "annotations", key: match[2] ?? "" };
}

/** Why the path may not stand in an environment variable or a volume's file; undefined if it may. */
export function fieldPathProblem(path: string, where: "env" | "volume"): string | undefined {
  const known = where === "env" ? ENV : VOLUME;
  if (known.includes(path) || subscriptOf(path) !== undefined) return undefined;
  if (path === "spec.serviceAccountName")
    return "is not carried out: there is no API server, so there are no service accounts";
  const meant = nearest(path, known);
  const advice =
    meant === undefined
      ? `must be one of ${known.join(", ")}, metadata.labels['KEY'], metadata.annotations['KEY']`
      : `did you mean ${meant}?`;
  return `unsupported value ${JSON.stringify(path)}, ${advice}`;
}
