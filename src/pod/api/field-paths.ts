/** Which fields and resources of a pod a container may be told: Kubernetes' `validateObjectFieldSelector`, `validateContainerResourceFieldSelector`. */
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

const RESOURCE = /^(?:limits|requests)\.(?:cpu|memory|hugepages-\d+[KMG]i)$/;
const RESOURCES = ["cpu", "memory"].flatMap((name) => [`limits.${name}`, `requests.${name}`]);
const CPU_DIVISORS = ["1m", "1"];
const BYTE_DIVISORS = [
  "1",
  ..."kMGTPE".split("").map((unit) => `1${unit}`),
  ..."KMGTPE".split("").map((unit) => `1${unit}i`),
];

/** Why a resourceFieldRef may not stand there, and in which of its fields; undefined if it may. */
export function resourceFieldProblem({
  resource,
  divisor = "0",
}: {
  readonly resource: string;
  readonly divisor?: string | undefined;
}): { readonly field: "resource" | "divisor"; readonly message: string } | undefined {
  if (!RESOURCE.test(resource)) {
    const meant = nearest(resource, RESOURCES);
    const advice = /\.ephemeral-storage$/.test(resource)
      ? "is not carried out: nobody limits it here"
      : meant === undefined
        ? `must be one of ${RESOURCES.join(", ")}, limits.hugepages-SIZE, requests.hugepages-SIZE`
        : `did you mean ${meant}?`;
    return { field: "resource", message: `unsupported value ${JSON.stringify(resource)}, ${advice}` };
  }
  const name = resource.replace(/^.*?\./, "");
  const known = name === "cpu" ? CPU_DIVISORS : BYTE_DIVISORS;
  if (["0", ...known].includes(divisor)) return undefined;
  const message = `unsupported value ${JSON.stringify(divisor)}, must be one of ${known.join(", ")} for ${name}`;
  return { field: "divisor", message };
}
