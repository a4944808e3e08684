/** Files of configMap, secret, downwardAPI and projected volumes: `pkg/volume/*`, `MakePayload`, `CollectData`. */
import type { DownwardFile, KeyToPath, Volume, VolumeProjection } from "../api/volumes.ts";
import { type EnvInput, fieldValue, missing, resourceValue } from "../spec/env.ts";

export interface PayloadFile {
  readonly data: Uint8Array;
  readonly mode: number;
}

/** By path below the volume. */
export type Payload = Map<string, PayloadFile>;

/** The files of a volume that is made of text; undefined for another kind of volume. @throws Error in the kubelet's words */
export function payloadOf(input: EnvInput, volume: Volume): Payload | undefined {
  const { configMap, secret, downwardAPI, projected } = volume;
  if (configMap !== undefined) return configFiles(input, configMap, configMap.defaultMode);
  if (secret !== undefined)
    return secretFiles(input, { ...secret, name: secret.secretName }, secret.defaultMode);
  if (downwardAPI !== undefined) return downwardFiles(input, downwardAPI.items, downwardAPI.defaultMode);
  if (projected === undefined) return undefined;
  const all: Payload = new Map();
  for (const source of projected.sources ?? []) {
    for (const [path, file] of projection(input, source, projected.defaultMode)) all.set(path, file);
  }
  return all;
}

function projection(
  input: EnvInput,
  { configMap, secret, downwardAPI }: VolumeProjection,
  mode: number,
): Payload {
  if (configMap !== undefined) return configFiles(input, configMap, mode);
  if (secret !== undefined) return secretFiles(input, secret, mode);
  return downwardFiles(input, downwardAPI?.items, mode);
}

interface Reference {
  readonly name: string;
  readonly items?: readonly KeyToPath[] | undefined;
  readonly optional?: boolean | undefined;
}

function configFiles(input: EnvInput, reference: Reference, mode: number): Payload {
  return keyFiles("configmap", input.references.configMap(reference.name), reference, mode);
}

function secretFiles(input: EnvInput, reference: Reference, mode: number): Payload {
  return keyFiles("secret", input.references.secret(reference.name), reference, mode);
}

function keyFiles(
  kind: "configmap" | "secret",
  data: ReadonlyMap<string, Uint8Array> | undefined,
  { name, items, optional = false }: Reference,
  defaultMode: number,
): Payload {
  if (data === undefined) {
    if (optional) return new Map();
    throw missing(kind, name);
  }
  if (items === undefined || items.length === 0)
    return new Map([...data].map(([key, bytes]) => [key, { data: bytes, mode: defaultMode }]));
  const files: Payload = new Map();
  for (const { key, path, mode = defaultMode } of items) {
    const bytes = data.get(key);
    if (bytes !== undefined) files.set(path, { data: bytes, mode });
    else if (!optional)
      throw new Error(`references non-existent ${kind === "secret" ? "secret" : "config"} key: ${key}`);
  }
  return files;
}

function downwardFiles(input: EnvInput, items: readonly DownwardFile[] = [], defaultMode: number): Payload {
  const files: Payload = new Map();
  for (const { path, fieldRef, resourceFieldRef, mode = defaultMode } of items) {
    const [own] = input.pod.spec.containers;
    const text =
      fieldRef !== undefined
        ? fieldValue(input, fieldRef)
        : resourceFieldRef !== undefined && own !== undefined
          ? resourceValue(input, own, resourceFieldRef)
          : "";
    files.set(path, { data: Buffer.from(text), mode });
  }
  return files;
}
