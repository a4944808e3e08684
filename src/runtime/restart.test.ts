import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { ContainerSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { ProcessSchema, Status } from "#gen/containerd/v1/types/task_pb.ts";
import { silentLogger } from "../lib/log.ts";
import { fail } from "../model/errors.ts";
import { type RestartDependencies, RestartMonitor } from "./restart.ts";

/** What the monitor does to a container that is to run, whose task is asked for by `get`, in two looks. */
async function callsFor(get: () => Promise<Status>, policy = "always"): Promise<string[]> {
  const calls: string[] = [];
  const labels = { "containerd.io/restart.status": "running", "containerd.io/restart.policy": policy };
  const container = create(ContainerSchema, { id: "web", labels });
  const done = Promise.withResolvers<void>();
  let looks = 0;
  const call = (name: string) => async () => void calls.push(name);
  const dependencies = {
    namespaces: {
      list: async () => {
        if (++looks > 2) done.resolve();
        return [{ name: "default" }];
      },
    },
    containers: {
      withLabel: async () => [container],
      revision: () => 1,
      update: async () => container,
    },
    tasks: {
      get: async () => create(ProcessSchema, { id: "web", status: await get() }),
      kill: call("kill"),
      wait: call("wait"),
      delete: call("delete"),
      create: call("create"),
      start: async () => {
        calls.push("start");
        get = async () => Status.RUNNING;
      },
    },
    snapshots: new Map(),
    logger: silentLogger,
  } as unknown as RestartDependencies;
  const monitor = new RestartMonitor(1, dependencies);
  monitor.start();
  await done.promise;
  await monitor.close();
  return calls;
}

const RESTART = ["kill", "wait", "delete", "create", "start"];

test("a task of which its shim does not know how it is is started again, as by containerd", async () => {
  expect(await callsFor(async () => Status.UNKNOWN)).toEqual(RESTART);
  expect(await callsFor(async () => Status.UNKNOWN, "unless-stopped")).toEqual(RESTART);
});

test("not by a policy that wants a failure", async () => {
  expect(await callsFor(async () => Status.UNKNOWN, "on-failure")).toEqual([]);
});

test("one whose shim does not answer is left alone", async () => {
  const silent = () => Promise.reject(fail("DeadlineExceeded", "task web"));
  expect(await callsFor(silent)).toEqual([]);
});

test("one that runs or is paused is left alone, one that has ended is not", async () => {
  for (const status of [Status.RUNNING, Status.PAUSED, Status.PAUSING])
    expect(await callsFor(async () => status)).toEqual([]);
  expect(await callsFor(async () => Status.STOPPED)).toEqual(RESTART);
});

test("where no container has the label, the containers are not looked through again before one has changed", async () => {
  let revision = 1;
  let asked = 0;
  let lists = 0;
  const waiters: { readonly atLeast: number; readonly resolve: () => void }[] = [];
  const monitor = new RestartMonitor(1, {
    namespaces: {
      list: async () => {
        lists++;
        return [{ name: "default" }];
      },
    },
    containers: {
      withLabel: async () => [],
      revision: () => {
        asked++;
        for (const { atLeast, resolve } of waiters) if (asked >= atLeast) resolve();
        return revision;
      },
    },
    logger: silentLogger,
  } as unknown as RestartDependencies);
  const looks = (count: number) =>
    new Promise<void>((resolve) => waiters.push({ atLeast: asked + count, resolve }));
  monitor.start();
  await looks(5);
  expect(lists).toBe(1);
  revision++;
  await looks(5);
  expect(lists).toBe(2);
  await monitor.close();
});
