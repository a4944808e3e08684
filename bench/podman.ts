/** Debian's podman, unpacked beside its parts, with a root of its own: what `bunkerd pod run` is measured beside. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { debianPackage } from "../test/support/debian.ts";
import { removeFolder, temporaryFolder } from "../test/support/processes.ts";

export interface Podman extends AsyncDisposable {
  /** @throws Error with what podman says */
  run(words: readonly string[], stdin?: string): Promise<string>;
  /** Its output is the caller's. */
  start(words: readonly string[], stdin?: string): Bun.Subprocess<"pipe", "pipe", "pipe">;
}

const LIBRARIES = ["libgpgme11", "libsubid4"];

/** Programs and libraries, unpacked. */
export interface PodmanParts {
  readonly podman: string;
  readonly conmon: string;
  readonly helpers: readonly string[];
  readonly libraries: readonly string[];
}

/** Downloads them once; so it is called where the registries are reached, before a node's network is entered. */
export async function podmanParts(): Promise<PodmanParts> {
  const unpacked = (name: string): Promise<string> => debianPackage("bookworm", name);
  const [podman, conmon] = await Promise.all(["podman", "conmon"].map(unpacked));
  const [netavark, dns, catatonit] = await Promise.all(
    ["netavark", "aardvark-dns", "catatonit"].map(unpacked),
  );
  const libraries = await Promise.all(LIBRARIES.map(unpacked));
  return {
    podman: `${podman}/usr/bin/podman`,
    conmon: `${conmon}/usr/bin/conmon`,
    helpers: [
      `${netavark}/usr/lib/podman`,
      `${dns}/usr/lib/podman`,
      `${catatonit}/usr/libexec/podman`,
      `${catatonit}/usr/bin`,
    ],
    libraries: libraries.map((library) => `${library}/usr/lib/x86_64-linux-gnu`),
  };
}

/** @param archive of an image that it shall have */
export async function startPodman(parts: PodmanParts, archive: string): Promise<Podman> {
  const folder = temporaryFolder();
  writeConfig(folder, parts);
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: folder,
    TMPDIR: folder,
    LD_LIBRARY_PATH: parts.libraries.join(":"),
    CONTAINERS_CONF: join(folder, "containers.conf"),
    CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
    CONTAINERS_REGISTRIES_CONF: join(folder, "registries.conf"),
  };
  const begin = (words: readonly string[], stdin?: string) => {
    const command = [parts.podman, "--cgroup-manager", "cgroupfs", "--events-backend", "file", ...words];
    const child = Bun.spawn(command, { env, stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    if (stdin !== undefined) void child.stdin.write(stdin);
    void child.stdin.end();
    return child;
  };
  const run = async (words: readonly string[], stdin?: string): Promise<string> => {
    const child = begin(words, stdin);
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    if ((await child.exited) !== 0) throw new Error(`podman ${words.join(" ")}: ${stderr}`);
    return stdout;
  };
  await run(["load", "--input", archive]);
  return {
    run,
    start: begin,
    async [Symbol.asyncDispose]() {
      await run(["pod", "rm", "--all", "--force", "--time", "0"]);
      await run(["system", "reset", "--force"]);
      removeFolder(folder);
    },
  };
}

/** As Debian's defaults, but for the places, and for crun, which refuses hybrid cgroups: runc is the runtime of both sides then. */
function writeConfig(folder: string, { conmon, helpers }: PodmanParts): void {
  // Its defaults are more than a machine without CAP_SYS_RESOURCE may set.
  const containers = `
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
conmon_path = [${JSON.stringify(conmon)}]
runtime = "runc"
helper_binaries_dir = ${JSON.stringify(helpers)}
static_dir = "${folder}/libpod"
tmp_dir = "${folder}/tmp"
volume_path = "${folder}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "${folder}/networks"
`;
  const storage = `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/root"\nrunroot = "${folder}/run"\n`;
  const policy = { default: [{ type: "insecureAcceptAnything" }] };
  mkdirSync(join(folder, ".config/containers"), { recursive: true });
  for (const [name, text] of Object.entries({
    "containers.conf": containers,
    "storage.conf": storage,
    "registries.conf": "",
    ".config/containers/policy.json": JSON.stringify(policy),
  }))
    writeFileSync(join(folder, name), text);
}
