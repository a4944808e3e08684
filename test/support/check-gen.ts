/** `make check-gen`: fails, and names the files, if `gen/` is not what `proto/` generates or `proto/` is not tidy. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const BIN = join(ROOT, "node_modules/.bin");

function buf(...args: string[]): string | undefined {
  const env = { ...process.env, PATH: `${BIN}:${process.env["PATH"] ?? ""}` };
  const { exitCode, stdout, stderr } = Bun.spawnSync([join(BIN, "buf"), ...args], { cwd: ROOT, env });
  return exitCode === 0 ? undefined : `buf ${args[0]}:\n${stdout}${stderr}`;
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

function problems(work: string): string[] {
  const generated = buf("generate", "--output", work);
  if (generated !== undefined) return [generated];
  const [want, have] = [join(work, "gen"), join(ROOT, "gen")];
  const differing = [...new Set([...filesBelow(want), ...filesBelow(have)])].sort().flatMap((file) => {
    const [wanted, present] = [join(want, file), join(have, file)];
    if (!existsSync(wanted)) return [`gen/${file} is no longer generated`];
    if (!existsSync(present)) return [`gen/${file} is missing`];
    return readFileSync(wanted).equals(readFileSync(present)) ? [] : [`gen/${file} differs`];
  });
  if (differing.length > 0) differing.push("`make gen` brings gen/ up to date; commit it with proto/");
  return [...differing, buf("lint"), buf("format", "--exit-code", "--diff", "proto")].filter(
    (one) => one !== undefined,
  );
}

const work = mkdtempSync(join(tmpdir(), "bunkerd-check-gen-"));
try {
  const found = problems(work);
  for (const problem of found) process.stderr.write(`${problem}\n`);
  process.exitCode = found.length === 0 ? 0 : 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}
