import { afterAll } from "bun:test";
import type { DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import {
  any,
  compareSteps,
  departs,
  fatal,
  none,
  runtime,
  type Step,
  step,
} from "../../support/comparison.ts";
import { endNamespaces, makeRootfs, newNamespace } from "../../support/containers.ts";
import { type Connection, inNamespace } from "../../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

const folder = temporaryFolder();
const rootfs = [{ type: "bind", source: await makeRootfs(folder), options: ["rbind", "rw"] }];
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const process = { user: { uid: 0, gid: 0 }, args: ["/bin/sleep", "1000"], cwd: "/", env: ["PATH=/bin"] };
const text = {
  ociVersion: "1.0.2",
  process,
  root: { path: "rootfs" },
  mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
  linux: { cgroupsPath: "/NAMESPACE/web", namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }] },
};
const spec = any(SPEC_TYPE, JSON.stringify(text));

/** Ids of containers are the machine's at runc: each daemon has a namespace of its own. */
const namespaces = new Map<Connection, string>();

function inOwnNamespace(
  { name, shows }: Step,
  call: (connection: Connection, namespace: string) => Promise<unknown>,
): Step {
  return {
    name,
    shows,
    async call(connection) {
      const namespace = namespaces.get(connection) ?? newNamespace();
      namespaces.set(connection, namespace);
      try {
        return withoutPids(await call(connection, namespace), namespace);
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        const message = error.rawMessage
          .replaceAll(namespace, "<namespace>")
          .replaceAll(/bkt-\w{6}/g, "<folder>");
        throw new ConnectError(message, error.code);
      }
    },
  };
}

function withoutPids(answer: unknown, namespace: string): unknown {
  const text = JSON.stringify(answer, (key, value: unknown) => {
    if (key === "pid" && typeof value === "number") return value > 0 ? "a pid" : 0;
    if (key === "data") return "figures";
    if (value instanceof Uint8Array) return Buffer.from(value).toString("latin1");
    return typeof value === "bigint" ? String(value) : value;
  });
  return JSON.parse(text.replaceAll(namespace, "<namespace>"));
}

type Request<M extends keyof typeof Tasks.method> =
  (typeof Tasks.method)[M] extends DescMethodUnary<infer I> ? MessageInitShape<I> : never;

function task<M extends keyof typeof Tasks.method>(method: M, request: Request<M>, shows?: RegExp): Step {
  return inOwnNamespace(step(Tasks, method, request, shows), (connection, namespace) => {
    const client = connection.client(Tasks) as unknown as Record<
      string,
      (...args: unknown[]) => Promise<unknown>
    >;
    return client[method]?.(request, inNamespace(namespace)) ?? Promise.reject(new Error(`no ${method}`));
  });
}

function container(
  fields: MessageInitShape<(typeof Containers.method)["create"]["input"]>["container"],
): Step {
  const create = step(Containers, "create", { container: fields });
  return inOwnNamespace(create, (connection, namespace) => {
    const own = structuredClone({ runtime, ...fields }) as typeof fields;
    if (own?.spec?.value !== undefined) {
      own.spec.value = Buffer.from(Buffer.from(own.spec.value).toString().replace("NAMESPACE", namespace));
    }
    return connection.client(Containers).create({ container: own }, inNamespace(namespace));
  });
}

const web = { containerId: "web" };
const exec = { ...web, execId: "e" };
const execSpec = any(PROCESS_TYPE, JSON.stringify({ ...process, args: ["/bin/sh", "-c", "exit 3"] }));

compareSteps([
  step(Tasks, "list", {}, /namespace is required/, none),
  step(Tasks, "create", web, /namespace is required/, none),
  departs(
    { code: "FailedPrecondition", message: "namespace is required: failed precondition" },
    step(Tasks, "metrics", {}, /namespace is required/, none),
  ),
  task("list", {}, /"tasks":\[\]/),
  task("metrics", {}),
  task("create", web, /container \\?"web\\?" in namespace .*not found/),
  task("create", {}),
  task("start", web, /not found/),
  task("delete", web, /not found/),
  task("deleteProcess", exec, /not found/),
  task("get", web, /not found/),
  task("kill", { ...web, signal: 9 }, /not found/),
  task("exec", { ...exec, spec }, /not found/),
  task("exec", web, /exec id cannot be empty/),
  task("resizePty", web, /not found/),
  task("closeIO", web, /not found/),
  task("pause", web, /not found/),
  task("resume", web, /not found/),
  task("listPids", web, /not found/),
  task("checkpoint", web, /not found/),
  task("update", { ...web, resources: spec }, /not found/),
  task("wait", web, /not found/),

  container({ id: "web", spec }),
  task("get", web, /task web not found/),
  task("delete", web, /task web not found/),
  task("wait", web, /task web not found/),
  task(
    "create",
    { ...web, options: any("containerd.runc.v1.CheckpointOptions", "") },
    /invalid task create option/,
  ),
  task("create", { ...web, runtimePath: "io.containerd.none.v9" }, /binary not installed/),
  task("create", { ...web, runtimePath: "none" }, /invalid runtime name/),
  task("create", { ...web, runtimePath: "/none/shim" }, /invalid custom binary path/),
  task(
    "create",
    { ...web, rootfs: [{ type: "none-such", source: "x" }] },
    /failed to mount rootfs|no such device/,
  ),
  task("create", { ...web, rootfs }, /a pid/),
  task("create", { ...web, rootfs }, /task web: already exists/),
  task("get", web, /"status":1/),
  task("list", {}, /"status":1/),
  task("get", { ...web, execId: "none" }, /not found/),
  task("start", { ...web, execId: "none" }, /not found/),
  task("start", web, /a pid/),
  task("start", web),
  task("get", web, /"status":2/),
  task("listPids", web, /a pid/),
  task("metrics", { filters: ["id==web"] }, /figures/),
  task("metrics", { filters: ["id==none"] }, /"metrics":\[\]/),
  task("metrics", { filters: ["runtime==x"] }),
  departs({ code: "InvalidArgument", message: /=/ }, task("metrics", { filters: ["id="] }, /Unknown/)),
  task("exec", { ...exec, execId: "" }, /exec id cannot be empty/),
  task("exec", { ...exec, execId: "../x", spec: execSpec }, /invalid exec id \.\.\/x/),
  // Without a spec the shim ends, and the container with it.
  fatal(task("exec", exec)),
  task("exec", { ...exec, spec: any(PROCESS_TYPE, "no json") }),
  task("exec", { ...exec, spec: execSpec }, /Empty|\{/),
  task("exec", { ...exec, spec: execSpec }),
  task("get", exec, /"status":1/),
  task("deleteProcess", { ...web, execId: "none" }, /not found/),
  task("kill", { ...web, execId: "none", signal: 9 }, /not found/),
  task("start", exec, /a pid/),
  task("wait", exec, /"exitStatus":3/),
  task("get", exec, /"status":3/),
  task("kill", { ...exec, signal: 9 }, /not found/),
  task("deleteProcess", exec, /"exitStatus":3/),
  task("deleteProcess", exec, /not found/),
  task("resizePty", { ...web, width: 80, height: 24 }),
  task("resizePty", { ...web, execId: "none", width: 80, height: 24 }, /not found/),
  task("wait", { ...web, execId: "none" }, /not found/),
  task("closeIO", { ...web, stdin: true }),
  task("closeIO", web),
  task("closeIO", { ...web, execId: "none" }, /not found/),
  task("closeIO", { ...web, execId: "none", stdin: true }, /not found/),
  fatal(task("update", web)),
  task("update", {
    ...web,
    resources: any(
      "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
      '{"pids":{"limit":99}}',
    ),
  }),
  task("update", { ...web, resources: any("x", "no json") }),
  task("kill", { ...web, signal: 999 }),
  task("pause", web),
  task("get", web, /"status":4/),
  task("pause", web),
  task("resume", web),
  task("resume", web),
  task(
    "checkpoint",
    { ...web, options: any("containerd.runc.v1.Options", "") },
    /invalid task checkpoint option/,
  ),
  task("delete", web, /FailedPrecondition|running/),
  task("deleteProcess", web),
  task("kill", { ...web, signal: 9, all: true }, /Empty|\{/),
  task("wait", web, /"exitStatus":137/),
  task("get", web, /"status":3/),
  task("start", web),
  task("pause", web),
  task("exec", { ...exec, spec: execSpec }),
  task("listPids", web),
  task("metrics", {}),
  task("delete", web, /"exitStatus":137/),
  task("delete", web, /task web not found/),

  container({ id: "bare" }),
  container({ id: "broken", spec: any(SPEC_TYPE, "no json") }),
  container({ id: "other", spec: any("x", "y") }),
  fatal(task("create", { containerId: "bare" })),
  departs(
    { code: "InvalidArgument", message: /^container spec is no JSON: / },
    task("create", { containerId: "broken" }, /invalid character/),
  ),
  task("create", { containerId: "other" }),
  task("list", {}, /"tasks":\[\]/),
  container({ id: "noruntime", spec, runtime: { name: "" } }),
]);
