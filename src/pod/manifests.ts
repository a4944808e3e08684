/** A directory of manifests as pods that are to run: `pkg/kubelet/config/file.go`. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../model/errors.ts";
import { type Manifest, parseManifest } from "./api/manifest.ts";
import type { PodFile } from "./api/pod.ts";
import { manifestText } from "./api/text.ts";

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

/** A file as it was read last, and what was in it. */
interface ReadFile {
  /** Its inode, size and time of change. */
  readonly version: string;
  readonly manifest: Manifest | undefined;
  readonly problem: string;
}

const NAMES = /^[^.].*\.(?:ya?ml|json)$/;
/** A file that has changed so shortly before it is read may change once more without another time of change. */
const SETTLED_MS = 100;

/** Reads a directory again and again: a file that has not changed since is not parsed once more. */
export class ManifestReader {
  readonly #directory: string;
  #files = new Map<string, ReadFile>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @throws ErrnoException if the directory cannot be read */
  read(): Reading {
    const wanted = new Map<string, WantedPod>();
    const broken = new Map<string, string>();
    const files = new Map<string, ReadFile>();
    const names = readdirSync(this.#directory).filter((each) => NAMES.test(each));
    for (const name of names.sort()) {
      const source = join(this.#directory, name);
      const file = this.#file(source);
      if (file === undefined) continue;
      if (file.version !== "") files.set(source, file);
      if (file.problem !== "") broken.set(source, file.problem);
      const { manifest } = file;
      if (manifest === undefined) continue;
      for (const pod of manifest.pods)
        add(wanted, broken, { file: pod, manifest, source, namespace: pod.metadata.namespace ?? "default" });
    }
    this.#files = files;
    return { wanted, broken };
  }

  /** Undefined: no file, or gone since it was listed. */
  #file(source: string): ReadFile | undefined {
    let version = "";
    try {
      const status = statSync(source, { bigint: true });
      if (!status.isFile()) return undefined;
      const settled = BigInt(Date.now()) - status.ctimeMs > SETTLED_MS;
      if (settled) version = `${status.dev} ${status.ino} ${status.size} ${status.ctimeNs}`;
      const earlier = this.#files.get(source);
      if (earlier !== undefined && earlier.version === version) return earlier;
      const text = manifestText(readFileSync(source), source);
      // Somebody is about to write it.
      if (text.trim() === "") return { version, manifest: undefined, problem: `${source}: is empty` };
      return { version, manifest: parseManifest(text, source), problem: "" };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      return { version, manifest: undefined, problem: messageOf(error) };
    }
  }
}

function add(wanted: Map<string, WantedPod>, broken: Map<string, string>, pod: WantedPod): void {
  const key = `${pod.namespace}/${pod.file.metadata.name}`;
  const first = wanted.get(key);
  if (first === undefined) wanted.set(key, pod);
  else broken.set(pod.source, `${pod.source}: pod ${key} stands in ${first.source} already`);
}
