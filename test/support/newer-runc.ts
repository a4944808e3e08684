/** sid's runc on this machine: 1.2 and later shift the ids of mounts and make mounts read-only with all below them, bookworm's 1.1 does neither. */
import { copyFileSync, existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./daemons.ts";
import { debianPackage, debianProgram } from "./debian.ts";
import { output } from "./processes.ts";

/**
 * The path of a copy that names its own suite's libc and loader in its ELF header: runc executes itself anew by /proc/self/exe, so that it cannot be
 * started by the loader as other programs can. Downloads it once.
 */
export async function newerRunc(): Promise<string> {
  const folder = await debianProgram("sid", "runc", /^(?:libc6|libseccomp2)$/);
  const patchelf = join(await debianPackage("bookworm", "patchelf"), "usr/bin/patchelf");
  const libraries = join(folder, "usr/lib/x86_64-linux-gnu");
  const loader = join(libraries, "ld-linux-x86-64.so.2");
  const program = join(REPOSITORY, ".cache/runc-of-sid");
  if (existsSync(program)) return program;
  const own = `${program}.${process.pid}`;
  copyFileSync(join(folder, "usr/sbin/runc"), own);
  await output([patchelf, "--set-interpreter", loader, "--set-rpath", libraries, own]);
  renameSync(own, program);
  return program;
}
