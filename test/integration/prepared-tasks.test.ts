/** Shims that are started before their container is there, on Debian's shim and runc. What is left of one fails the test at its end. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { OptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import { ExecProcessRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { packSpec } from "../../src/client/spec.ts";
import { CGROUP_FILES, CgroupLock } from "../../src/linux/cgroup-lock.ts";
import { makeRootfs, until } from "../support/containers.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type TestTasks, testTasks } from "../support/task-store.ts";

const shared = temporaryFolder();
let rootfs = "";

beforeAll(async () => {
  rootfs = await makeRootfs(shared);
});
afterAll(() => removeFolder(shared));

const STDIO = { stdin: "", stdout: "", stderr: "", terminal: false };
const SLEEP = ["/bin/sleep", "1000"];

function bundleOf({ folder, scope }: TestTasks, id: string): string {
  return join(folder, "state/io.containerd.runtime.v2.task", scope.namespace, id);
}

/** Processes of shims that serve. */
function shimsOf({ scope }: TestTasks, id: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      return command.includes(`-namespace ${scope.namespace} -id ${id} `) && !command.includes(" start ");
    } catch {
      return false;
    }
  });
}

function prepare(given: TestTasks, id: string, options?: Any) {
  const { tasks, scope, runtime } = given;
  return tasks.prepare(scope, { containerId: id, runtime, options, annotations: { of: "it" } });
}

test("the container runs in the shim that was started before it, by its own spec", async () => {
  await using given = await testTasks(rootfs);
  const prepared = prepare(given, "one");
  expect(prepare(given, "one")).toBeUndefined();
  expect(prepared).toBeDefined();
  const bootstrap = join(bundleOf(given, "one"), "bootstrap.json");
  await until("its shim has started", () => existsSync(bootstrap));
  const spec = () => JSON.parse(readFileSync(join(bundleOf(given, "one"), "config.json"), "utf8"));
  expect(spec()).toMatchObject({ annotations: { of: "it" } });
  const [shim, ...others] = shimsOf(given, "one");
  expect(others).toEqual([]);
  await given.run("one", SLEEP, STDIO);
  expect(shimsOf(given, "one")).toEqual([shim ?? ""]);
  expect(spec()).toMatchObject({ process: { args: SLEEP } });
  const again = given.run("one", SLEEP, STDIO).catch(String);
  expect(await again).toContain("already exists");
  await given.remove("one");
});

test("one that is not needed any more goes with its bundle, at once and twice", async () => {
  await using given = await testTasks(rootfs);
  const prepared = prepare(given, "none");
  await prepared?.discard();
  await prepared?.discard();
  expect(existsSync(bundleOf(given, "none"))).toBe(false);
  expect(shimsOf(given, "none")).toEqual([]);
});

test("after its container was created it is the container's", async () => {
  await using given = await testTasks(rootfs);
  const prepared = prepare(given, "kept");
  await given.run("kept", SLEEP, STDIO);
  await prepared?.discard();
  expect(shimsOf(given, "kept")).toHaveLength(1);
  await given.remove("kept");
});

test("with other options than the container's it makes way for another", async () => {
  await using given = await testTasks(rootfs);
  prepare(given, "other", anyPack(OptionsSchema, create(OptionsSchema)));
  await given.run("other", SLEEP, STDIO);
  expect(shimsOf(given, "other")).toHaveLength(1);
  await given.remove("other");
});

test("a runtime whose shim may read more of the spec is not started early, nor one that is not there", async () => {
  await using given = await testTasks(rootfs);
  const { tasks, scope } = given;
  for (const runtime of ["/bin/true", "io.containerd.none.v9", ""])
    expect(
      tasks.prepare(scope, { containerId: "odd", runtime, options: undefined, annotations: {} }),
    ).toBeUndefined();
});

test("the kernel's lock of control groups is at hand while a container or a command is started", async () => {
  let taken = 0;
  const write: typeof CGROUP_FILES.write = async (path, text) => {
    await CGROUP_FILES.write(path, text);
    taken++;
  };
  const lock = new CgroupLock({ ...CGROUP_FILES, write });
  await using given = await testTasks(rootfs, lock);
  const { tasks, scope } = given;
  const process = await given.run("one", SLEEP, STDIO, {
    created: () => {
      expect(taken).toBeGreaterThan(0);
      expect(lock.isWanted).toBe(false);
    },
  });
  const before = taken;
  const spec = { ...packSpec(process), typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process" };
  const name = { containerId: "one", execId: "e" };
  await tasks.exec(scope, create(ExecProcessRequestSchema, { ...name, ...STDIO, spec }));
  const started = tasks.start(scope, name);
  expect(lock.isWanted).toBe(true);
  await started;
  expect(lock.isWanted).toBe(false);
  expect(taken).toBeGreaterThan(before);
  await given.remove("one");
});
