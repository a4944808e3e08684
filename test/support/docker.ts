/** Debian's dockerd on a daemon's socket, in a mount and a network namespace of the test's: what it mounts and configures goes with them. */
import { mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newNamespace, until } from "./containers.ts";
import { type Daemon, type DaemonKind, type DaemonOptions, startDaemon } from "./daemons.ts";
import { debianPackage, type Suite } from "./debian.ts";
import { type Finished, run, start } from "./processes.ts";

export interface Docker extends AsyncDisposable {
  /** The daemon that dockerd runs on. */
  readonly daemon: Daemon;
  /** dockerd's containers are in it. */
  readonly namespace: string;
  readonly folder: string;
  log(): string;
  docker(...args: readonly string[]): Promise<Finished>;
  /** The same; what it printed. @throws if it fails */
  ok(...args: readonly string[]): Promise<string>;
  /** Ends the daemon by SIGKILL and starts it again on what it left, while dockerd runs. */
  killDaemon(): Promise<void>;
  /** Ends dockerd, then the daemon, by SIGKILL, and starts both again. */
  killBoth(): Promise<void>;
  /** Ends dockerd by SIGTERM; its exit code. */
  stop(): Promise<number>;
}

export interface DockerOptions {
  readonly suite: Suite;
  /** `daemon.json`. */
  readonly config?: object;
}

export async function startDocker(kind: DaemonKind, options: DockerOptions): Promise<Docker> {
  const dockerd = await debianPackage(options.suite, "docker.io");
  const cli = options.suite === "sid" ? await debianPackage("sid", "docker-cli") : dockerd;
  await using stack = new AsyncDisposableStack();
  const holder = start(["unshare", "--mount", "--net", "sh", "-c", "echo ready; exec sleep infinity"], {
    stdin: "ignore",
    stdout: "pipe",
  });
  stack.defer(async () => {
    holder.kill("SIGKILL");
    await holder.exited;
  });
  const ready = await holder.stdout.getReader().read();
  if (ready.done) throw new Error("unshare --mount --net failed");
  const inside = ["nsenter", "--target", String(holder.pid), "--mount", "--net"];

  const under: DaemonOptions = { prefix: inside };
  let daemon = await startDaemon(kind, under);
  stack.defer(() => daemon.stop());
  const { folder } = daemon;
  const namespace = newNamespace();
  const [socket, log] = [join(folder, "docker.sock"), join(folder, "dockerd.log")];
  for (const name of ["data", "exec", "home/.docker/cli-plugins"])
    mkdirSync(join(folder, name), { recursive: true });
  if (options.suite === "sid") {
    const buildx = join(
      await debianPackage("sid", "docker-buildx"),
      "usr/libexec/docker/cli-plugins/docker-buildx",
    );
    symlinkSync(buildx, join(folder, "home/.docker/cli-plugins/docker-buildx"));
  }
  writeFileSync(join(folder, "daemon.json"), JSON.stringify(options.config ?? {}));
  const words = [
    ...[join(dockerd, "usr/sbin/dockerd"), "--config-file", join(folder, "daemon.json")],
    ...["--containerd", daemon.socket, "--containerd-namespace", namespace],
    ...["--containerd-plugins-namespace", `${namespace}-plugins`, "--host", `unix://${socket}`],
    ...["--data-root", join(folder, "data"), "--exec-root", join(folder, "exec")],
    ...["--pidfile", join(folder, "pid"), "--group", "root", "--bridge=none", "--iptables=false"],
    "--userland-proxy=false",
  ];
  const out = openSync(log, "a");
  const startProcess = () => start([...inside, ...words], { stdin: "ignore", stdout: out, stderr: out });
  let child = startProcess();
  const stop = async (): Promise<number> => {
    child.kill("SIGTERM");
    return await child.exited;
  };
  stack.defer(async () => void (await stop()));

  const docker = (...args: readonly string[]): Promise<Finished> =>
    run([...inside, join(cli, "usr/bin/docker"), "--host", `unix://${socket}`, ...args], {
      env: { HOME: join(folder, "home") },
    });
  const readLog = (): string => readFileSync(log, "utf8");
  const listens = async (): Promise<void> => {
    await until(
      () => `dockerd listens: ${readLog()}`,
      async () => child.exitCode !== null || (await docker("version")).code === 0,
    );
    if (child.exitCode !== null) throw new Error(`dockerd ended: ${readLog()}`);
  };
  await listens();
  const owned = stack.move();
  return {
    get daemon() {
      return daemon;
    },
    ...{ namespace, folder, docker, stop },
    log: readLog,
    async ok(...args) {
      const { code, stdout, stderr } = await docker(...args);
      if (code !== 0) throw new Error(`docker ${args.join(" ")} exited ${code}: ${stdout}${stderr}`);
      return stdout;
    },
    async killDaemon() {
      await daemon.kill();
      daemon = await startDaemon(kind, { ...under, folder });
    },
    async killBoth() {
      child.kill("SIGKILL");
      await child.exited;
      await daemon.kill();
      daemon = await startDaemon(kind, { ...under, folder });
      child = startProcess();
      await listens();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
