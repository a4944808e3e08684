/** CRIU, which bookworm has too old for today's kernels (its `criu check` fails of the vDSO): sid's, with the libraries that it was built with. */
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { debianProgram } from "./debian.ts";
import { run } from "./processes.ts";

const LIBRARIES =
  /^lib(?:bsd|md|gnutls|nftables|protobuf-c|nl-3|net|uuid|c6|p11-kit|idn2|unistring|tasn1|hogweed|nettle|gmp|mnl|nftnl|xtables|jansson|ffi)[\d.-]*(?:t64)?$/;

/** Puts `criu` into `folder`, for PATH; a reason if there is none, or it says that it cannot work on this kernel. */
export async function installCriu(folder: string): Promise<{ readonly problem?: string }> {
  let tree: string;
  try {
    tree = await debianProgram("sid", "criu", LIBRARIES);
  } catch (error) {
    return { problem: `sid's criu cannot be had: ${String(error).slice(0, 300)}` };
  }
  const names = readdirSync(tree, { recursive: true, encoding: "utf8" });
  const at = (pattern: RegExp): string => join(tree, names.find((name) => pattern.test(name)) ?? "none");
  const libraries = names.filter((name) => /(?:^|\/)lib\/[^/]+-linux-gnu[^/]*$/.test(name));
  const path = libraries.map((name) => join(tree, name)).join(":");
  const loader = at(/-linux-gnu[^/]*\/ld-linux[^/]*\.so\.\d$/);
  const script = `#!/bin/sh\nexec ${loader} --library-path ${path} ${at(/bin\/criu$/)} "$@"\n`;
  writeFileSync(join(folder, "criu"), script, { mode: 0o755 });
  const { code, stdout, stderr } = await run([join(folder, "criu"), "check"]);
  return code === 0 ? {} : { problem: `criu check: ${stdout}${stderr}` };
}
