import type { ContentStore } from "../model/content.ts";
import type { Differ } from "../model/diff.ts";
import { applyLayer } from "./apply.ts";
import type { StreamProcessor } from "./processing.ts";
import { Workers } from "./workers.ts";

export interface DifferDependencies {
  readonly content: ContentStore;
  /** Those that come first are asked first. */
  readonly processors?: readonly StreamProcessor[];
  /** True if ids here are not the machine's own. */
  readonly inUserNamespace: boolean;
}

/**
 * The differ that containerd calls `walking`: it reads and writes files, whatever the file system. Each job has a thread of its own.
 */
export function openDiffer({ content, processors = [], inUserNamespace }: DifferDependencies): Differ {
  const workers = new Workers();
  return {
    apply: (scope, layer, mounts, options = {}) =>
      applyLayer({ content, workers, processors, inUserNamespace }, scope, layer, mounts, options),
    async compare(scope, lower, upper, options = {}) {
      // Loads the compressors, which a start does without.
      const { compareMounts } = await import("./compare.ts");
      return await compareMounts({ content, workers }, scope, lower, upper, options);
    },
  };
}
