/** A container's environment: `pkg/kubelet/kubelet_pods.go`, `makeEnvironmentVariables`. */
import type { Container, EnvFrom, EnvVar } from "../api/container.ts";
import { subscriptOf } from "../api/field-paths.ts";
import type { Pod } from "../api/pod.ts";
import { divideQuantities } from "../api/quantity.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import type { FieldRef, ResourceFieldRef } from "../api/volumes.ts";
import { expand } from "./expansion.ts";
import type { Node } from "./node.ts";
import { limitsOf, requestsOf } from "./qos.ts";

/** ConfigMaps and Secrets that the pod may name, as text and as bytes. */
export interface References {
  configMap(name: string): ReadonlyMap<string, Uint8Array> | undefined;
  /** Those keys of a ConfigMap that environment variables may come from: its `data`, not its `binaryData`. */
  configText(name: string): ReadonlyMap<string, Uint8Array> | undefined;
  secret(name: string): ReadonlyMap<string, Uint8Array> | undefined;
}

export interface EnvInput {
  readonly pod: Pod;
  readonly node: Node;
  readonly references: References;
  readonly podIps: readonly string[];
}

/** @throws Error in the kubelet's words for a reference that is not there */
export function environment(input: EnvInput, container: AnyContainer): Map<string, string> {
  const result = new Map<string, string>();
  for (const source of container.envFrom ?? []) addAll(input, source, result);
  for (const variable of container.env ?? []) {
    const value = valueOfVariable(input, container, variable, result);
    if (value !== undefined) result.set(variable.name, value);
  }
  return result;
}

/** A variable's value is not known before the pod has an address. */
export function needsPodIp({ env = [] }: AnyContainer): boolean {
  return env.some(({ valueFrom }) => valueFrom?.fieldRef?.fieldPath.startsWith("status.podIP") === true);
}

function addAll({ references }: EnvInput, source: EnvFrom, result: Map<string, string>): void {
  const { configMapRef, secretRef, prefix } = source;
  const ref = configMapRef ?? secretRef;
  if (ref === undefined) return;
  const data = configMapRef === undefined ? references.secret(ref.name) : references.configText(ref.name);
  if (data === undefined) {
    if (ref.optional === true) return;
    throw missing(configMapRef === undefined ? "secret" : "configmap", ref.name);
  }
  for (const [key, value] of data) {
    if (key !== "" && !/[=\0]/.test(key)) result.set(`${prefix}${key}`, decode(value));
  }
}

function valueOfVariable(
  input: EnvInput,
  container: AnyContainer,
  { value = "", valueFrom }: EnvVar,
  earlier: ReadonlyMap<string, string>,
): string | undefined {
  if (valueFrom === undefined) return expand(value, (name) => earlier.get(name));
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
  if (fieldRef !== undefined) return fieldValue(input, fieldRef);
  if (resourceFieldRef !== undefined) return resourceValue(input, container, resourceFieldRef);
  const ref = configMapKeyRef ?? secretKeyRef;
  if (ref === undefined) return undefined;
  const isSecret = configMapKeyRef === undefined;
  const data = isSecret ? input.references.secret(ref.name) : input.references.configText(ref.name);
  const found = data?.get(ref.key);
  if (found !== undefined) return decode(found);
  if (ref.optional === true) return undefined;
  if (data === undefined) throw missing(isSecret ? "secret" : "configmap", ref.name);
  const kind = isSecret ? "Secret" : "ConfigMap";
  throw new Error(`couldn't find key ${ref.key} in ${kind} ${input.pod.metadata.namespace}/${ref.name}`);
}

export function missing(kind: string, name: string): Error {
  return new Error(`${kind} ${JSON.stringify(name)} not found`);
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** A field of the pod as text; what the paths may be is checked when the file is read. */
export function fieldValue({ pod, node, podIps }: EnvInput, { fieldPath }: FieldRef): string {
  const { metadata, spec } = pod;
  const subscript = subscriptOf(fieldPath);
  if (subscript !== undefined) return metadata[subscript.field][subscript.key] ?? "";
  const ips = spec.hostNetwork && podIps.length === 0 ? node.hostIps : podIps;
  const values: Readonly<Record<string, string>> = {
    "metadata.name": metadata.name,
    "metadata.namespace": metadata.namespace,
    "metadata.uid": metadata.uid,
    "metadata.labels": lines(metadata.labels),
    "metadata.annotations": lines(metadata.annotations),
    "spec.nodeName": spec.nodeName ?? node.hostname,
    "status.hostIP": node.hostIps[0] ?? "",
    "status.hostIPs": node.hostIps.join(","),
    "status.podIP": ips[0] ?? "",
    "status.podIPs": ips.join(","),
  };
  return values[fieldPath] ?? "";
}

/** `pkg/fieldpath`, `FormatMap`: sorted, values quoted. */
function lines(map: Readonly<Record<string, string>>): string {
  return Object.keys(map)
    .sort()
    .map((key) => `${key}=${JSON.stringify(map[key])}`)
    .join("\n");
}

/** What a container may use, or asks for, in units of the divisor; a limit that is not set is what the machine has. */
export function resourceValue({ pod, node }: EnvInput, own: AnyContainer, ref: ResourceFieldRef): string {
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  const named = ref.containerName;
  const container = named === undefined ? own : all.find(({ name }) => name === named);
  if (container === undefined) throw new Error(`container ${named} not found`);
  const { resources } = container as Partial<Container>;
  const [kind, name = ""] = ref.resource.split(".");
  const capacity: Readonly<Record<string, string>> = {
    cpu: String(node.cpuCount),
    memory: String(node.memoryCapacityBytes),
  };
  const amounts = kind === "limits" ? { ...capacity, ...limitsOf(resources) } : requestsOf(resources);
  const divisor = ref.divisor ?? "1";
  return String(divideQuantities(amounts[name] ?? "0", divisor === "0" ? "1" : divisor));
}
