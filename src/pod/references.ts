/** ConfigMaps and Secrets of a file as the bytes behind their keys. */
import type { ConfigMap, Secret } from "./api/meta.ts";
import type { References } from "./spec/env.ts";

type Data = ReadonlyMap<string, Uint8Array>;

/** Those of the pod's own namespace; an object without one is in the pod's. */
export function referencesOf(
  namespace: string,
  configMaps: readonly ConfigMap[],
  secrets: readonly Secret[],
): References {
  const own = <T extends ConfigMap | Secret>(
    objects: readonly T[],
    read: (object: T) => Data,
  ): Map<string, Data> =>
    new Map(
      objects
        .filter(({ metadata }) => (metadata.namespace ?? namespace) === namespace)
        .map((object) => [object.metadata.name, read(object)]),
    );
  const maps = own(configMaps, ({ data, binaryData }) => new Map([...text(data), ...base64(binaryData)]));
  const words = own(configMaps, ({ data }) => new Map(text(data)));
  const hidden = own(secrets, ({ data, stringData }) => new Map([...base64(data), ...text(stringData)]));
  return {
    configMap: (name) => maps.get(name),
    configText: (name) => words.get(name),
    secret: (name) => hidden.get(name),
  };
}

function text(data: Readonly<Record<string, string>> = {}): [string, Uint8Array][] {
  return Object.entries(data).map(([key, value]) => [key, Buffer.from(value)]);
}

function base64(data: Readonly<Record<string, string>> = {}): [string, Uint8Array][] {
  return Object.entries(data).map(([key, value]) => [key, Buffer.from(value, "base64")]);
}
