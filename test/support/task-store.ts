/** Tasks in this process, on a database of their own, with Debian's shim and runc: for what stands on TaskStore. */
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ContainerSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Events } from "#gen/containerd/services/events/ttrpc/v1/events_pb.ts";
import { CreateTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { packSpec } from "../../src/client/spec.ts";
import type { Stdio } from "../../src/cri/io/stdio.ts";
import { addEnvironment } from "../../src/cri/spec/process.ts";
import type { Process } from "../../src/cri/spec/spec.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { CgroupLock } from "../../src/linux/cgroup-lock.ts";
import type { Scope } from "../../src/model/scope.ts";
import { Shims } from "../../src/runtime/shims.ts";
import { Tasks } from "../../src/runtime/tasks.ts";
import { bind } from "../../src/transport/registry.ts";
import { TtrpcServer } from "../../src/transport/ttrpc/server.ts";
import { endNamespaces, leftovers, newNamespace } from "./containers.ts";
import { containerdProgram } from "./daemons.ts";
import { temporaryMetadata } from "./metadata.ts";
import { removeFolder, temporaryFolder } from "./processes.ts";

export interface TestTasks extends AsyncDisposable {
  readonly tasks: Tasks;
  readonly scope: Scope;
  readonly folder: string;
  /** The shim's path. */
  readonly runtime: string;
  /** Creates and starts a container; its process as an exec's pattern. */
  run(id: string, args: readonly string[], stdio: Stdio, given?: RunOptions): Promise<Process>;
  /** Kills, waits and deletes. */
  remove(id: string): Promise<void>;
}

export interface RunOptions {
  /** Between the answer to Create and Start. */
  readonly created?: () => void;
  /** A network namespace's path; the machine's own without. */
  readonly netns?: string;
}

const TIMEOUTS = { taskStateMs: 2000, shimLoadMs: 5000, shimCleanupMs: 5000, shimShutdownMs: 3000 };

export async function testTasks(rootfs: string, cgroupLock = new CgroupLock()): Promise<TestTasks> {
  const folder = temporaryFolder();
  const metadata = await temporaryMetadata();
  const namespace = newNamespace();
  const scope: Scope = { namespace };
  const clock = systemClock();
  const { containers, sandboxes } = metadata;
  const address = join(folder, "d.sock");
  const settings = {
    address,
    ttrpcAddress: `${address}.ttrpc`,
    publishBinary: "/bin/true",
    version: "0",
    socketDir: "/run/containerd/s",
    env: [],
    debug: false,
  };
  const folders = {
    state: join(folder, "state/io.containerd.runtime.v2.task"),
    root: join(folder, "root/io.containerd.runtime.v2.task"),
  };
  const publisher = { publish: () => undefined };
  // A shim that cannot tell its events stops after some hundred.
  const told = bind(Events, { forward: () => ({}) });
  const server = new TtrpcServer(
    { path: settings.ttrpcAddress, uid: 0, gid: 0 },
    { bindings: [told], logger: silentLogger },
  );
  await server.start();
  const shims = new Shims(
    { folders, settings, timeouts: TIMEOUTS },
    { containers, sandboxes, publisher, clock, logger: silentLogger },
  );
  const tasks = new Tasks({ containers, shims, cgroupLock, clock, logger: silentLogger });
  const runtime = await containerdProgram("2.1", "containerd-shim-runc-v2");
  return {
    tasks,
    scope,
    folder,
    runtime,
    async run(id, args, stdio, { created, netns } = {}) {
      const process: Process = {
        user: { uid: 0, gid: 0 },
        args: [...args],
        env: ["PATH=/bin"],
        cwd: "/",
        terminal: stdio.terminal,
      };
      if (stdio.terminal) addEnvironment(process, ["TERM=xterm"]);
      const spec = packSpec(specOf(rootfs, process, join("/", namespace, id), netns));
      await containers.create(scope, create(ContainerSchema, { id, spec, runtime: { name: runtime } }));
      await tasks.create(scope, create(CreateTaskRequestSchema, { containerId: id, ...stdio }));
      created?.();
      await tasks.start(scope, { containerId: id, execId: "" });
      return process;
    },
    async remove(id) {
      const name = { containerId: id, execId: "" };
      await tasks.kill(scope, name, 9, true).catch(() => undefined);
      await tasks.wait(scope, name);
      await tasks.delete(scope, id);
      await containers.delete(scope, id);
    },
    async [Symbol.asyncDispose]() {
      tasks.stopWaiting();
      await shims.close();
      await server.close(1000);
      await metadata.close();
      const left = leftovers(folder, namespace);
      endNamespaces();
      removeFolder(folder);
      if (left.length > 0) throw new Error(`left behind: ${left.join("\n")}`);
    },
  };
}

function specOf(rootfs: string, process: Process, cgroupsPath: string, netns: string | undefined): object {
  const network = netns === undefined ? [] : [{ type: "network", path: netns }];
  return {
    ociVersion: "1.1.0",
    process,
    root: { path: rootfs },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=64k"] },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
      },
    ],
    linux: { cgroupsPath, namespaces: [{ type: "pid" }, { type: "ipc" }, { type: "mount" }, ...network] },
  };
}
