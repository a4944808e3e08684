import { isFatal } from "../config/config.ts";
import { formatConfig } from "../config/dump.ts";
import { loadConfig } from "../config/load.ts";
import { type GlobalOptions, loadOptionsOf } from "./options.ts";

export function printDefault(): void {
  process.stdout.write(formatConfig(new Map()));
}

/** @throws what {@link loadConfig} throws */
export function printEffective(options: GlobalOptions & { readonly origins?: boolean }): void {
  const { tree } = loadConfig(loadOptionsOf(options));
  process.stdout.write(formatConfig(tree, { origins: options.origins ?? false }));
}

/** @throws what {@link loadConfig} throws */
export function printMigrated(options: GlobalOptions): void {
  const { tree } = loadConfig(loadOptionsOf(options));
  process.stdout.write(formatConfig(tree, { defaults: false }));
}

/** Prints every problem, one a line; true if the daemon would do all that the configuration asks, or warns. */
export function checkConfig(options: GlobalOptions): boolean {
  const { files, problems } = loadConfig(loadOptionsOf(options));
  const isError = (kind: (typeof problems)[number]["kind"]): boolean =>
    isFatal(kind) || kind === "unknown" || kind === "fault";
  for (const { kind, message } of problems) {
    process.stdout.write(`${isError(kind) ? "error" : "warning"}: ${message.replaceAll("\n", " ")}\n`);
  }
  const errors = problems.filter(({ kind }) => isError(kind)).length;
  const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? "" : "s"}`;
  const checked = files.length === 0 ? "no config file, defaults" : count(files.length, "file");
  process.stdout.write(
    `${checked}: ${count(errors, "error")}, ${count(problems.length - errors, "warning")}\n`,
  );
  return errors === 0;
}
