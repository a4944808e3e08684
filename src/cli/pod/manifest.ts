import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { type Manifest, parseManifest } from "../../pod/api/manifest.ts";
import type { ManifestText } from "./options.ts";

/** What the files hold together. @throws InvalidArgument if there is no pod in them, or an object twice */
export function readPods(texts: readonly ManifestText[]): Manifest {
  const manifests = texts.map(parse);
  const manifest = {
    pods: manifests.flatMap(({ pods }) => pods),
    configMaps: manifests.flatMap(({ configMaps }) => configMaps),
    secrets: manifests.flatMap(({ secrets }) => secrets),
  };
  const place = texts.map(({ name }) => name).join(", ");
  if (manifest.pods.length === 0)
    throw new Error(`${place}: there is no Pod in ${texts.length === 1 ? "it" : "them"}`);
  const seen = new Set<string>();
  for (const { kind, metadata } of Object.values(manifest).flat()) {
    const { name, namespace } = metadata;
    const key = `${kind} ${quote(name)}${namespace === undefined ? "" : ` in namespace ${quote(namespace)}`}`;
    if (seen.has(key)) throw new BunkerdError("InvalidArgument", `${place}: ${key} stands there twice`);
    seen.add(key);
  }
  return manifest;
}

/** Of several problems each has a line of its own. */
function parse({ text, name }: ManifestText): Manifest {
  try {
    return parseManifest(text, name);
  } catch (error) {
    const problems = messageOf(error).split("\n");
    if (problems.length === 1) throw error;
    process.stderr.write(problems.map((problem) => `bunkerd: ${problem}\n`).join(""));
    throw new Error(`${name}: nothing was done`, { cause: error });
  }
}
