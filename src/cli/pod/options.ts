import { readFileSync } from "node:fs";
import { errnoWords } from "../../linux/errno.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { Roots } from "../../pod/paths.ts";
import type { GlobalOptions } from "../options.ts";

/** Options of every `pod` command. */
export interface PodOptions extends GlobalOptions {
  readonly runtimeEndpoint: string;
  readonly podsRoot: string;
  readonly logsRoot: string;
  readonly namespace: string;
}

export type OutputFormat = "json" | "yaml" | "wide";

export function rootsOf({ podsRoot, logsRoot }: PodOptions): Roots {
  return { pods: podsRoot, logs: logsRoot };
}

/** The text of a file, `-` for stdin. @throws NotFound, InvalidArgument */
export async function readManifestText(file: string): Promise<{ text: string; name: string }> {
  if (file === "-") return { text: await Bun.stdin.text(), name: "stdin" };
  try {
    return { text: readFileSync(file, "utf8"), name: file };
  } catch (error) {
    const { code, errno = 0 } = error as NodeJS.ErrnoException;
    const kind = code === "ENOENT" ? "NotFound" : "InvalidArgument";
    throw new BunkerdError(kind, `open ${file}: ${errnoWords(errno)}`, { cause: error });
  }
}
