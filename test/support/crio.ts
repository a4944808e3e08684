/**
 * CRI-O for tests of pods: `BUNKERD_TEST_CRIO` names its program, with `pinns` beside it; Debian has no package of either. Monitor, runtime and
 * network plugins are Debian's. Everything that it keeps lies in one folder; images come from a registry on the loopback.
 */
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { unmountBelow } from "../../src/linux/mountinfo.ts";
import { accepts } from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { removeFolder, start } from "./processes.ts";

/** Undefined: CRI-O is not asked for. */
export const CRIO = process.env["BUNKERD_TEST_CRIO"];

const READY_TIMEOUT_MS = 60_000;

export interface CrioOptions {
  readonly folder: string;
  readonly pauseImage: string;
  /** Folders of CNI. */
  readonly plugins: string;
  readonly networks: string;
  /** `host:port`, where images of docker.io are in truth. */
  readonly registry: string;
  /** Runtimes besides runc, by the handler's name. */
  readonly handlers?: Readonly<Record<string, string>>;
  readonly prefix?: readonly string[];
}

/** What a test of pods needs of a runtime's daemon. */
export interface Crio {
  readonly socket: string;
  readonly pid: number;
  log(): string;
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * runc, which refuses what a machine may not have: CAP_SYS_RESOURCE for privileged containers and for OOM scores below 0, limits of huge pages without
 * the controller. containerd and bunkerd look for themselves or are told in their configuration; CRI-O has no such settings.
 */
function runtimeOf(folder: string, name: string, program: string): string {
  const path = join(folder, `${name}-runtime`);
  const script = [
    ...(mayUseResources()
      ? []
      : ['s/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": 0/', ...withoutCapability("CAP_SYS_RESOURCE")]),
    ...(existsSync("/sys/fs/cgroup/hugetlb")
      ? []
      : ['s/"hugepageLimits": *\\[[^]]*\\]/"hugepageLimits": []/']),
  ];
  const lines = [
    "#!/bin/sh",
    'for word; do [ "$last" = --bundle ] && sed -z -i "$script" "$word/config.json"; last=$word; done',
    `exec ${program} "$@"`,
  ];
  writeFileSync(path, `${lines[0]}\nscript='${script.join("; ")}'\n${lines.slice(1).join("\n")}\n`, {
    mode: 0o755,
  });
  return path;
}

function withoutCapability(name: string): string[] {
  return [`s/"${name}",//g`, `s/,[[:space:]]*"${name}"//g`];
}

function mayUseResources(): boolean {
  const CAP_SYS_RESOURCE = 24n;
  const bounding = /^CapBnd:\s*(\w+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  return ((BigInt(`0x${bounding}`) >> CAP_SYS_RESOURCE) & 1n) === 1n;
}

/** What is no string, number or list of strings is a table's heading. */
function toml(tables: Readonly<Record<string, Readonly<Record<string, unknown>>>>): string {
  return Object.entries(tables)
    .map(([name, keys]) =>
      [`[${name}]`, ...Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`)].join(
        "\n",
      ),
    )
    .join("\n");
}

async function configOf({
  folder,
  pauseImage,
  plugins,
  networks,
  handlers = {},
}: CrioOptions): Promise<string> {
  const at = (name: string): string => join(folder, name);
  const conmon = join(await debianPackage("bookworm", "conmon"), "usr/bin/conmon");
  const runtimes = Object.entries({ runc: "runc", ...handlers }).map(([name, program]) => [
    `crio.runtime.runtimes.${name}`,
    {
      runtime_path: runtimeOf(folder, name, program),
      runtime_root: at("runc"),
      monitor_path: conmon,
      monitor_cgroup: "pod",
      monitor_env: [`PATH=${process.env["PATH"] ?? ""}`],
    },
  ]);
  return toml({
    crio: {
      root: at("root"),
      runroot: at("run"),
      storage_driver: "overlay",
      log_dir: at("logs"),
      version_file: at("version"),
      clean_shutdown_file: at("clean"),
    },
    "crio.api": { listen: at("d.sock"), stream_address: "127.0.0.1", stream_port: "0" },
    "crio.runtime": {
      default_runtime: "runc",
      cgroup_manager: "cgroupfs",
      conmon_cgroup: "pod",
      pinns_path: join(dirname(CRIO ?? ""), "pinns"),
      namespaces_dir: at("namespaces"),
      container_exits_dir: at("exits"),
      container_attach_socket_dir: at("attach"),
      hooks_dir: [],
      irqbalance_config_restore_file: "disable",
    },
    ...Object.fromEntries(runtimes),
    "crio.image": {
      pause_image: pauseImage,
      pause_command: "",
      signature_policy: at("policy.json"),
      signature_policy_dir: at("policies"),
    },
    "crio.network": { network_dir: networks, plugin_dirs: [plugins] },
    "crio.nri": { enable_nri: false },
  });
}

/** Any registry of the loopback is asked without TLS; docker.io is one of them. */
function registriesOf(registry: string): string {
  return [
    'unqualified-search-registries = ["docker.io"]',
    'short-name-mode = "disabled"',
    `[[registry]]\nprefix = "docker.io"\nlocation = "${registry}"\ninsecure = true`,
    '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true',
  ].join("\n");
}

/** Starts CRI-O, on what an earlier one left in the folder, and waits until its socket accepts. @throws with its log if it ends before */
export async function startCrio(options: CrioOptions): Promise<Crio> {
  const { folder, prefix = [] } = options;
  for (const name of ["namespaces", "policies", "exits", "attach", "tmp"])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, "crio.conf"), await configOf(options));
  writeFileSync(
    join(folder, "policy.json"),
    JSON.stringify({ default: [{ type: "insecureAcceptAnything" }] }),
  );
  writeFileSync(join(folder, "registries.conf"), registriesOf(options.registry));
  writeFileSync(join(folder, "storage.conf"), '[storage]\ndriver = "overlay"\n');
  const log = openSync(join(folder, "log"), "a");
  const words = [
    ...["--config", join(folder, "crio.conf"), "--config-dir", ""],
    ...["--registries-conf", join(folder, "registries.conf")],
  ];
  const child = start([...prefix, CRIO ?? "", ...words], {
    stdin: "ignore",
    stdout: log,
    stderr: log,
    cwd: folder,
    env: {
      ...process.env,
      TMPDIR: join(folder, "tmp"),
      CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
    },
  });
  const read = (): string => readFileSync(join(folder, "log"), "utf8");
  const socket = join(folder, "d.sock");
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await accepts(socket))) {
    if (child.exitCode !== null) throw new Error(`crio exited ${child.exitCode}: ${read()}`);
    if (performance.now() > deadline) throw new Error(`crio does not listen: ${read()}`);
    await Bun.sleep(5);
  }
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
  };
  return {
    socket,
    pid: child.pid,
    log: read,
    kill,
    async stop() {
      await kill();
      endMonitors(folder);
      // Its storage is a mount of its own.
      unmountBelow(folder);
      removeFolder(folder);
    },
  };
}

/** The monitors that a daemon which has been killed has left, with what they run. */
export function endMonitors(folder: string): void {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (readProc(pid, "comm") !== "conmon\n" || !readProc(pid, "cmdline").includes(`${folder}/`)) continue;
    const children = readProc(pid, `task/${pid}/children`).split(" ").filter(Boolean);
    for (const each of [...children, pid]) process.kill(Number(each), "SIGKILL");
  }
}

/** Empty if the process has gone. */
function readProc(pid: string, name: string): string {
  try {
    return readFileSync(join("/proc", pid, name), "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return "";
    throw error;
  }
}
