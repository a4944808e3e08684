/**
 * Real daemons for tests: bunkerd, and containerd as Debian packages it. Each has a root, a state and a socket in a
 * temporary folder of its own.
 *
 * `BUNKERD_BIN` names another bunkerd than `dist/bunkerd` ("bun src/main.ts"); `BUNKERD_TEST_DAEMONS` restricts the
 * daemons that shared test bodies run on ("containerd-2.1"); `BUNKERD_TEST_CONTAINERD` is a folder with the programs of another
 * containerd than Debian's 2.1, such as one of its next release.
 */
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { debianPackage, type Suite } from "./debian.ts";
import { removeFolder, start, temporaryFolder } from "./processes.ts";

export type DaemonKind = "bunkerd" | "containerd-2.1" | "containerd-1.6";
export type Version = "2.1" | "1.6";

export const REPOSITORY = join(import.meta.dir, "../..");
const READY_TIMEOUT_MS = 60_000;

export interface Daemon {
  readonly kind: DaemonKind;
  /** Holds `root`, `state`, the socket, `config.toml` and the log; removed by {@link Daemon.stop}. */
  readonly folder: string;
  readonly root: string;
  readonly socket: string;
  readonly database: string;
  readonly pid: number;
  log(): string;
  /** Resolves with the exit code when the process has ended. */
  readonly exited: Promise<number>;
  /** SIGTERM, wait, and keep the folder. Resolves with the exit code. */
  halt(): Promise<number>;
  /** SIGKILL, wait, and keep the folder. */
  kill(): Promise<void>;
  /** Ends the process, if it still runs, and removes the folder. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface DaemonOptions {
  /** An earlier daemon's folder, to be taken over. */
  readonly folder?: string;
  /** Another root than `<folder>/root`. */
  readonly root?: string;
  /** More lines of config.toml. */
  readonly config?: string;
  /** All of config.toml, of which root, state and address must be the folder's. */
  readonly wholeConfig?: (folder: string) => string;
  /** Whose `containerd-shim-runc-v2` is first in the daemon's PATH; containerd's own by default, 2.1's for bunkerd. */
  readonly shim?: Version;
  /** Of the daemon, besides the test's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** A command that starts the daemon's, such as `unshare -m`. */
  readonly prefix?: readonly string[];
  /** Plugins that the daemon starts without; default: of containerd those with a side effect outside its folders. */
  readonly disabledPlugins?: readonly string[];
}

/** More lines of config.toml: no garbage collection, which removes whatever a test has not rooted, at a moment of its own. */
export const WITHOUT_COLLECTION =
  '[plugins."io.containerd.gc.v1.scheduler"]\nstartup_delay = "1h"\nschedule_delay = "1h"';

/** The same, but that a collection that is asked for (`prune`, a synchronous removal) runs at once. */
export const COLLECTION_WHEN_ASKED = '[plugins."io.containerd.gc.v1.scheduler"]\nstartup_delay = "1h"';

/** The same, and snapshots are numbered as containerd's: bunkerd would apply layers side by side. */
export function inOrder(kind: DaemonKind): string {
  if (kind !== "bunkerd") return WITHOUT_COLLECTION;
  return `${WITHOUT_COLLECTION}\n[plugins."io.containerd.transfer.v1.local"]\nmax_concurrent_unpacks = 1`;
}

export const DATABASE = "io.containerd.metadata.v1.bolt/meta.db";

const NRI = "io.containerd.nri.v1.nri";

/** CRI listens on a port, NRI on a socket of the machine, opt makes a folder in /opt. */
const OUTSIDE: readonly string[] = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
];

/** The daemons that a test body runs on, out of those that it is made for; which are left out is printed. */
export function daemonKinds(...kinds: readonly DaemonKind[]): readonly DaemonKind[] {
  const wanted = process.env["BUNKERD_TEST_DAEMONS"]?.split(",");
  if (wanted === undefined) return kinds;
  for (const kind of kinds)
    if (!wanted.includes(kind)) process.stdout.write(`skipped: ${kind}: not in BUNKERD_TEST_DAEMONS\n`);
  return kinds.filter((kind) => wanted.includes(kind));
}

/** The command that starts bunkerd, without its arguments. */
export function bunkerdCommand(): readonly string[] {
  const command = process.env["BUNKERD_BIN"]?.split(" ") ?? [join(REPOSITORY, "dist/bunkerd")];
  return command.map((word) => (existsSync(join(REPOSITORY, word)) ? join(REPOSITORY, word) : word));
}

const SUITES: Readonly<Record<Version, Suite>> = { "2.1": "sid", "1.6": "bookworm" };

/** A program of Debian's containerd package: `containerd`, `ctr`, `containerd-shim-runc-v2`. */
export async function containerdProgram(version: Version, name: string): Promise<string> {
  const another = process.env["BUNKERD_TEST_CONTAINERD"];
  if (version === "2.1" && another !== undefined) return join(another, name);
  return join(await debianPackage(SUITES[version], "containerd"), "usr/bin", name);
}

/** Shims are found in PATH. What containerd leaves of checkpoints goes with its folder. */
async function environmentOf(
  kind: DaemonKind,
  folder: string,
  shim: Version | undefined,
): Promise<Record<string, string>> {
  const programs = dirname(
    await containerdProgram(shim ?? (kind === "containerd-1.6" ? "1.6" : "2.1"), "ctr"),
  );
  const temporary = kind === "bunkerd" ? {} : { TMPDIR: folder };
  return { ...process.env, ...temporary, PATH: `${programs}:${process.env["PATH"] ?? ""}` };
}

async function commandOf(kind: DaemonKind, config: string): Promise<string[]> {
  if (kind === "bunkerd") return [...bunkerdCommand(), "serve", "--config", config];
  const version = kind === "containerd-2.1" ? "2.1" : "1.6";
  return [await containerdProgram(version, "containerd"), "--config", config];
}

function configOf(kind: DaemonKind, folder: string, root: string, options: DaemonOptions): string {
  const disabled = options.disabledPlugins ?? (kind === "bunkerd" ? [] : OUTSIDE);
  return [
    "version = 2",
    `root = ${JSON.stringify(root)}`,
    `state = ${JSON.stringify(join(folder, "state"))}`,
    `disabled_plugins = ${JSON.stringify(disabled)}`,
    `[plugins."io.containerd.internal.v1.opt"]`,
    `path = ${JSON.stringify(join(folder, "opt"))}`,
    "[grpc]",
    `address = ${JSON.stringify(join(folder, "d.sock"))}`,
    options.config ?? "",
    // Its socket is the machine's.
    kind === "bunkerd" && options.config?.includes(NRI) !== true ? `[plugins."${NRI}"]\ndisable = true` : "",
  ].join("\n");
}

/** Starts a daemon without waiting for it; for one that must fail to start, and for measuring the start. */
export async function launchDaemon(kind: DaemonKind, options: DaemonOptions = {}): Promise<Daemon> {
  const folder = options.folder ?? temporaryFolder();
  const root = options.root ?? join(folder, "root");
  mkdirSync(join(folder, "state"), { recursive: true });
  const config = options.wholeConfig?.(folder) ?? configOf(kind, folder, root, options);
  writeFileSync(join(folder, "config.toml"), config);
  const log = openSync(join(folder, "log"), "a");
  const command = [...(options.prefix ?? []), ...(await commandOf(kind, join(folder, "config.toml")))];
  const child = start(command, {
    stdin: "ignore",
    stdout: log,
    stderr: log,
    cwd: folder,
    env: { ...(await environmentOf(kind, folder, options.shim)), ...options.env },
  });
  const end = async (signal: NodeJS.Signals): Promise<number> => {
    child.kill(signal);
    return child.exited;
  };
  const stop = async (): Promise<void> => {
    await end("SIGKILL");
    removeFolder(folder);
  };
  return {
    kind,
    folder,
    root,
    socket: join(folder, "d.sock"),
    database: join(root, DATABASE),
    pid: child.pid,
    log: () => readFileSync(join(folder, "log"), "utf8"),
    exited: child.exited,
    halt: () => end("SIGTERM"),
    kill: async () => void (await end("SIGKILL")),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Starts a daemon and waits until its socket accepts. @throws with its log if it ends before */
export async function startDaemon(kind: DaemonKind, options: DaemonOptions = {}): Promise<Daemon> {
  const daemon = await launchDaemon(kind, options);
  let exitCode: number | undefined;
  void daemon.exited.then((code) => {
    exitCode = code;
  });
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await accepts(daemon.socket))) {
    if (exitCode !== undefined) throw new Error(`${kind} exited ${exitCode}: ${daemon.log()}`);
    if (performance.now() > deadline) throw new Error(`${kind} does not listen: ${daemon.log()}`);
    await Bun.sleep(5);
  }
  return daemon;
}

/** True if somebody listens on the socket. */
export function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once("connect", () => {
      connection.destroy();
      resolve(true);
    });
    connection.once("error", () => resolve(false));
  });
}
