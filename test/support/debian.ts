/**
 * Debian's packages, unpacked under `.cache/debian/<suite>/<package>` and never installed: the tests and the bench run
 * the real containerd, ctr and runc from there. The package lists are private to `.cache/apt/<suite>`; where packages
 * come from is taken from the machine's own `debian.sources` at run time, with the suite replaced.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

export type Suite = "bookworm" | "sid";

const CACHE = join(import.meta.dir, "../../.cache");
const SOURCES = "/etc/apt/sources.list.d/debian.sources";
const TRIES = 4;

/**
 * The folder that holds the package's files (`<folder>/usr/bin/ctr`). Downloads it once; safe to call from several
 * processes at once. Dependencies are not followed: name each package that is needed.
 */
export async function debianPackage(suite: Suite, name: string): Promise<string> {
  return await unpacked(suite, name, async () => [name]);
}

/** The same with those of all its dependencies, in one folder, whose names match: a program of a newer suite with the libraries it was built with. */
export async function debianProgram(suite: Suite, name: string, libraries: RegExp): Promise<string> {
  return await unpacked(suite, `${name}+libraries`, async (options) => {
    const kinds = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
    const only = ["--recurse", ...kinds.map((kind) => `--no-${kind}`)];
    const closure = await run(["apt-cache", ...options, "depends", ...only, name], CACHE);
    const names = closure.split("\n").filter((line) => /^\w/.test(line) && libraries.test(line));
    return [name, ...new Set(names)];
  });
}

/** The folder with what `names` answers, downloaded and unpacked once. */
async function unpacked(
  suite: Suite,
  as: string,
  names: (options: readonly string[]) => Promise<readonly string[]>,
): Promise<string> {
  const folder = join(CACHE, "debian", suite, as);
  if (existsSync(folder)) return folder;
  await using _lock = await lockFile(join(CACHE, "debian.lock"));
  if (existsSync(folder)) return folder;
  for (const left of readdirSync(CACHE).filter((entry) => entry.startsWith("unpack-"))) {
    rmSync(join(CACHE, left), { recursive: true, force: true });
  }
  const work = mkdtempSync(join(CACHE, "unpack-"));
  try {
    for (const deb of await download(suite, names, work))
      await run(["dpkg", "-x", deb, join(work, "tree")], work);
    mkdirSync(join(CACHE, "debian", suite), { recursive: true });
    renameSync(join(work, "tree"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

async function download(
  suite: Suite,
  names: (options: readonly string[]) => Promise<readonly string[]>,
  into: string,
): Promise<string[]> {
  const state = join(CACHE, "apt", suite);
  const options = aptOptions(state, suite);
  for (let attempt = 1; ; attempt++) {
    try {
      // Lists of an earlier day name files that the archive no longer has: a second try renews them.
      if (attempt > 1 || !existsSync(join(state, "updated"))) {
        await run(["apt-get", ...options, "update"], into);
        writeFileSync(join(state, "updated"), "");
      }
      const wanted = await names(options);
      await run(["apt-get", ...options, "download", ...wanted], into);
      const debs = readdirSync(into).filter((file) => file.endsWith(".deb"));
      if (debs.length >= wanted.length) return debs.map((deb) => join(into, deb));
      throw new Error(`apt-get download ${wanted.join(" ")} of ${suite} left ${debs.length} .deb`);
    } catch (error) {
      if (attempt === TRIES) throw error;
      await Bun.sleep(attempt * 2000);
    }
  }
}

/** Points apt at lists, caches and sources of our own, so that the machine's stay as they are. */
function aptOptions(state: string, suite: Suite): string[] {
  for (const folder of ["lists/partial", "cache/archives/partial"]) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  writeFileSync(join(state, "debian.sources"), sourcesOf(suite));
  writeFileSync(join(state, "status"), "");
  return [
    ["Dir::Etc::SourceList", join(state, "debian.sources")],
    ["Dir::Etc::SourceParts", "-"],
    ["Dir::State::Lists", join(state, "lists")],
    ["Dir::State::status", join(state, "status")],
    ["Dir::Cache", join(state, "cache")],
    ["APT::Sandbox::User", "root"],
    ["Acquire::Retries", "3"],
  ].flatMap(([key, value]) => ["-o", `${key}=${value}`]);
}

/** The machine's first stanza of Debian's archive, with this suite. */
function sourcesOf(suite: Suite): string {
  const stanza = readFileSync(SOURCES, "utf8")
    .split(/\n\s*\n/)
    .find((text) => /^Suites:/m.test(text) && !/^Suites:.*-security/m.test(text));
  if (stanza === undefined) throw new Error(`${SOURCES} names no suite of Debian's archive`);
  return `${stanza.replace(/^Suites:.*$/m, `Suites: ${suite}`)}\n`;
}

async function run(command: string[], cwd: string): Promise<string> {
  const child = Bun.spawn(command, { cwd, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  // apt-get update exits 0 although a list could not be had.
  if (code !== 0 || /^(?:E|Err|W: Failed)/m.test(stderr)) {
    throw new Error(`${command.join(" ")} exited ${code}: ${stdout}${stderr}`);
  }
  return stdout;
}

/** Holds flock(2) by a child that dies with us, so a killed test leaves no stale lock. */
async function lockFile(path: string): Promise<AsyncDisposable> {
  mkdirSync(CACHE, { recursive: true });
  const holder = Bun.spawn(["flock", path, "sh", "-c", "echo held; exec cat"], {
    stdin: "pipe",
    stdout: "pipe",
  });
  const first = await holder.stdout.getReader().read();
  if (first.done) throw new Error(`flock ${path} failed`);
  return {
    async [Symbol.asyncDispose]() {
      await holder.stdin.end();
      await holder.exited;
    },
  };
}
