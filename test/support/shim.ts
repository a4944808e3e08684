/** A real containerd-shim-runc-v2, started as containerd's `core/runtime/v2/binary.go` does, and ended with the test. */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { containerdProgram, type Version } from "./daemons.ts";
import { kill, output, removeFolder, run, temporaryFolder } from "./processes.ts";

export interface Shim extends AsyncDisposable {
  readonly namespace: string;
  readonly id: string;
  readonly bundle: string;
  /** As the shim answered it. */
  readonly address: string;
  readonly pid: number;
}

export interface ShimOptions {
  /** Where the shim sends its events. */
  readonly ttrpcAddress?: string;
}

/** Starts a shim of that release for one container that is not created yet. */
export async function startShim(version: Version, options: ShimOptions = {}): Promise<Shim> {
  const program = await containerdProgram(version, "containerd-shim-runc-v2");
  const folder = temporaryFolder();
  const [namespace, id] = [
    `bunkerd-test-${process.pid}`,
    `shim-${process.pid}-${Math.random().toString(36).slice(2, 8)}`,
  ];
  const bundle = join(folder, id);
  mkdirSync(join(bundle, "rootfs"), { recursive: true });
  writeFileSync(join(bundle, "config.json"), JSON.stringify(SPEC));
  await output(["mkfifo", join(bundle, "log")]);
  // The shim refuses to start where nobody reads its log.
  const log = openSync(join(bundle, "log"), constants.O_RDWR | constants.O_NONBLOCK);
  const env = {
    TTRPC_ADDRESS: options.ttrpcAddress ?? join(folder, "none.ttrpc"),
    GRPC_ADDRESS: join(folder, "none"),
    NAMESPACE: namespace,
    MAX_SHIM_VERSION: "3",
  };
  const flags = [
    "-namespace",
    namespace,
    "-id",
    id,
    "-address",
    join(folder, "d.sock"),
    "-publish-binary",
    "/bin/true",
  ];
  const started = await run([program, ...flags, "start"], { cwd: bundle, env });
  if (started.code !== 0)
    throw new Error(`shim start exited ${started.code}: ${started.stdout}${started.stderr}`);
  const { address } = started.stdout.startsWith("{")
    ? (JSON.parse(started.stdout) as { address: string })
    : { address: started.stdout.trim() };
  const pid = pidOf(id);
  return {
    namespace,
    id,
    bundle,
    address,
    pid,
    async [Symbol.asyncDispose]() {
      kill(pid);
      await run([program, ...flags, "-bundle", bundle, "delete"], { cwd: bundle, env });
      rmSync(address.replace(/^unix:\/\//, ""), { force: true });
      // runc makes it for each namespace, and leaves it.
      rmSync(join("/run/containerd/runc", namespace), { recursive: true, force: true });
      closeSync(log);
      removeFolder(folder);
    },
  };
}

/** The least that runc creates a container from: the machine's own programs. */
const SPEC = {
  ociVersion: "1.0.2",
  process: { cwd: "/", args: ["/bin/sleep", "600"], user: { uid: 0, gid: 0 } },
  root: { path: "rootfs" },
  mounts: [
    { destination: "/proc", type: "proc", source: "proc" },
    ...["/usr", "/bin", "/lib", "/lib64"].map((path) => ({
      destination: path,
      source: path,
      options: ["rbind", "ro"],
    })),
  ],
  linux: { namespaces: [{ type: "mount" }, { type: "pid" }] },
};

/** The shim leaves its starter: its command line still names its container. */
function pidOf(id: string): number {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (commandLineOf(pid).split("\0").includes(id)) return Number(pid);
  }
  throw new Error(`no shim of ${id} runs`);
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(join("/proc", pid, "cmdline"), "utf8");
  } catch {
    return "";
  }
}
