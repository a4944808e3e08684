/** sid's runc on this machine: since 1.2 it shifts the ids of mounts, which bookworm's 1.1 does not. */
import { copyFileSync, existsSync, realpathSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { debianPackage, debianProgram } from "./debian.ts";
import { output, run } from "./processes.ts";

/**
 * The path of a copy that names its own suite's libc and loader in its ELF header: runc executes itself anew by /proc/self/exe, so that it cannot be
 * started by the loader as other programs can. Downloads it once; a reason if there is none that runs here.
 */
export async function newerRunc(): Promise<{ readonly program: string; readonly problem?: string }> {
  let folder: string;
  try {
    folder = realpathSync(await debianProgram("sid", "runc", /^lib(?:c6|seccomp2|pathrs.*)$/));
  } catch (error) {
    return { program: "", problem: `sid's runc cannot be had: ${String(error).slice(0, 300)}` };
  }
  const program = join(folder, "usr/sbin/runc-patched");
  if (!existsSync(program)) await patch(folder, program);
  const { code, stderr } = await run([program, "--version"]);
  return code === 0 ? { program } : { program, problem: `sid's runc does not run: ${stderr}` };
}

async function patch(folder: string, program: string): Promise<void> {
  const patchelf = join(await debianPackage("bookworm", "patchelf"), "usr/bin/patchelf");
  const libraries = join(folder, "usr/lib/x86_64-linux-gnu");
  const own = `${program}.${process.pid}`;
  copyFileSync(join(folder, "usr/sbin/runc"), own);
  try {
    const loader = join(libraries, "ld-linux-x86-64.so.2");
    await output([patchelf, "--set-interpreter", loader, "--set-rpath", libraries, own]);
    renameSync(own, program);
  } finally {
    rmSync(own, { force: true });
  }
}
