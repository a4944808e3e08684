import { readFileSync } from "node:fs";
import { errnoWords } from "../../linux/errno.ts";
import { BunkerdError } from "../../model/errors.ts";
import { manifestText } from "../../pod/api/text.ts";
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

export interface ManifestText {
  readonly text: string;
  /** What messages call it. */
  readonly name: string;
}

/** One after another; a file `-` is stdin. @throws NotFound, InvalidArgument */
export async function readManifestTexts(files: readonly string[]): Promise<ManifestText[]> {
  const texts: ManifestText[] = [];
  for (const file of files) texts.push(await readManifestText(file));
  return texts;
}

async function readManifestText(file: string): Promise<ManifestText> {
  if (file === "-") {
    const bytes = Buffer.from(await Bun.stdin.arrayBuffer());
    return { text: manifestText(bytes, "stdin"), name: "stdin" };
  }
  return { text: manifestText(readBytes(file), file), name: file };
}

function readBytes(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code, errno = 0 } = error as NodeJS.ErrnoException;
    const kind = code === "ENOENT" ? "NotFound" : "InvalidArgument";
    throw new BunkerdError(kind, `open ${file}: ${errnoWords(errno)}`, { cause: error });
  }
}
