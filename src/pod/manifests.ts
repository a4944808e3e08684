/** A directory of manifests as pods that are to run: `pkg/kubelet/config/file.go`. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../model/errors.ts";
import { type Manifest, parseManifest } from "./api/manifest.ts";
import type { PodFile } from "./api/pod.ts";

export interface WantedPod {
  readonly file: PodFile;
  readonly manifest: Manifest;
  readonly namespace: string;
  /** Path of the file that it comes from. */
  readonly source: string;
}

export interface Reading {
  /** By `namespace/name`. */
  readonly wanted: ReadonlyMap<string, WantedPod>;
  /** Files that say nothing that can be understood, and why: what ran from them before goes on. */
  readonly broken: ReadonlyMap<string, string>;
}

const NAMES = /^[^.].*\.(?:ya?ml|json)$/;

/** @throws ErrnoException if the directory cannot be read */
export function readManifests(directory: string): Reading {
  const wanted = new Map<string, WantedPod>();
  const broken = new Map<string, string>();
  for (const name of readdirSync(directory)
    .filter((each) => NAMES.test(each))
    .sort()) {
    const source = join(directory, name);
    try {
      if (!statSync(source).isFile()) continue;
      const manifest = parseManifest(readFileSync(source, "utf8"), source);
      for (const file of manifest.pods)
        add(wanted, broken, { file, manifest, source, namespace: file.metadata.namespace ?? "default" });
    } catch (error) {
      // Gone since it was listed.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") broken.set(source, messageOf(error));
    }
  }
  return { wanted, broken };
}

function add(wanted: Map<string, WantedPod>, broken: Map<string, string>, pod: WantedPod): void {
  const key = `${pod.namespace}/${pod.file.metadata.name}`;
  const first = wanted.get(key);
  if (first === undefined) wanted.set(key, pod);
  else broken.set(pod.source, `${pod.source}: pod ${key} stands in ${first.source} already`);
}
