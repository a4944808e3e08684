/** `containerd.services.sandbox.v1.Controller`, all of its methods, on a shim's own sandboxes and on pods. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Controller } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { packSpec } from "../../../src/client/spec.ts";
import { shimsOf, socketOf, until } from "../../support/containers.ts";
import {
  type CriDaemon,
  exited,
  logOf,
  podConfig,
  podLeftovers,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { containerdProgram, daemonKinds } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";
import { temporaryFolder } from "../../support/processes.ts";
import { writeSandboxShim } from "../../support/sandbox-shim.ts";

useHostNetwork();

const scope = inNamespace("k8s.io");

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  let shim = "";
  beforeAll(async () => {
    const folder = temporaryFolder();
    shim = writeSandboxShim(folder, await containerdProgram("2.1", "containerd-shim-runc-v2"));
    cri = await startCri(kind, { handlers: { own: `runtime_type = "${shim}"\nsandboxer = "shim"` } });
  });
  afterAll(() => cri[Symbol.asyncDispose]());

  test("a shim without sandboxes of its own says so, and nothing is left of it", async () => {
    const controller = cri.client(Controller);
    const name = { sandboxId: `alone-${process.pid}-${kind.slice(0, 1)}`, sandboxer: "shim" };
    const runtime = { name: "io.containerd.runc.v2" };
    const spec = packSpec({ ociVersion: "1.2.0" });
    const sandbox = create(SandboxSchema, { sandboxId: name.sandboxId, runtime, sandboxer: "shim", spec });
    const service = "service containerd.runtime.sandbox.v1.Sandbox";
    await expect(controller.create({ ...name, sandbox }, scope)).rejects.toThrow(
      `[unimplemented] failed to create sandbox ${name.sandboxId}: ${service}`,
    );
    const gone = kind === "bunkerd" ? `shim ${name.sandboxId}: not found` : "not found";
    await expect(controller.wait(name, scope)).rejects.toThrow(gone);
    await controller.stop(name, scope);
    expect(await controller.status(name, scope)).toMatchObject({ sandboxId: name.sandboxId, state: "" });
    const path = join(cri.daemon.folder, "state/io.containerd.runtime.v2.task/k8s.io", name.sandboxId);
    expect(existsSync(path)).toBe(false);
    // containerd 2.1 leaves the shim running.
    for (const { pid, id } of shimsOf("k8s.io")) if (id === name.sandboxId) process.kill(pid, "SIGKILL");
    rmSync(socketOf(cri.daemon.socket, "k8s.io", name.sandboxId), { force: true });
  });

  test("a shim's sandbox is created, started, asked, stopped and shut down, with its events", async () => {
    const controller = cri.client(Controller);
    const left = new AbortController();
    const heard: string[] = [];
    const listening = (async () => {
      const filters = ['topic~="^/sandboxes/"'];
      for await (const { topic } of cri.client(Events).subscribe({ filters }, { signal: left.signal }))
        heard.push(topic);
    })().catch(() => undefined);
    await until("events are heard", async () => {
      await cri.client(Events).publish({ topic: "/sandboxes/ready" }, scope);
      return heard.length > 0;
    });
    const name = { sandboxId: `own-${process.pid}-${kind.slice(0, 1)}`, sandboxer: "shim" };
    const sandbox = create(SandboxSchema, {
      sandboxId: name.sandboxId,
      runtime: { name: shim },
      sandboxer: "shim",
    });
    sandbox.spec = packSpec({ ociVersion: "1.2.0" });
    await controller.create({ ...name, sandbox }, scope);
    expect((await controller.start(name, scope)).pid).toBeGreaterThan(0);
    // containerd 2.1 has the method in no service of its own.
    if (kind === "bunkerd")
      expect((await controller.platform(name, scope)).platform).toMatchObject({ os: "linux" });
    expect(await controller.status({ ...name, verbose: true }, scope)).toMatchObject({
      state: "SANDBOX_READY",
      info: { info: '{"by":"a test"}' },
    });
    expect((await controller.metrics(name, scope)).metrics?.id).toBe(name.sandboxId);
    await controller.update({ ...name, sandbox, fields: [] }, scope);
    const ended = controller.wait(name, scope);
    await controller.stop({ ...name, timeoutSecs: 1 }, scope);
    expect((await ended).exitStatus).toBe(0);
    await controller.shutdown(name, scope);
    await until("the end is heard", () => heard.includes("/sandboxes/exit"));
    expect(heard.filter((topic) => !topic.endsWith("ready"))).toEqual(
      ["create", "start", "exit"].map((verb) => `/sandboxes/${verb}`),
    );
    const path = join(cri.daemon.folder, "state/io.containerd.runtime.v2.task/k8s.io", name.sandboxId);
    expect(existsSync(path)).toBe(false);
    left.abort();
    await listening;
  });

  test("a pod of a handler with sandboxes of its own runs containers", async () => {
    const { runtime } = cri;
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await runtime.runPodSandbox({ config, runtimeHandler: "own" });
    const { status } = await runtime.podSandboxStatus({ podSandboxId });
    expect(status).toMatchObject({ state: PodSandboxState.SANDBOX_READY, runtimeHandler: "own" });
    const container = script("inside", "echo ran; exit 2");
    const id = await runContainer(cri, podSandboxId, config, container);
    expect(await exited(cri, id)).toMatchObject({ exitCode: 2 });
    expect(logOf(config, container)).toBe("ran\n");
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });

  test("a pod's controller tells of it, and waits for its end", async () => {
    const { runtime } = cri;
    const controller = cri.client(Controller);
    const config = podConfig(cri.daemon);
    const { podSandboxId: sandboxId } = await runtime.runPodSandbox({ config });
    const name = { sandboxId, sandboxer: "podsandbox" };
    const status = await controller.status({ ...name, verbose: true }, scope);
    expect(status).toMatchObject({ sandboxId, state: "SANDBOX_READY" });
    expect(JSON.parse(status.info["info"] ?? "{}")).toMatchObject({
      pid: status.pid,
      processStatus: "running",
    });
    const ended = controller.wait(name, scope);
    process.kill(status.pid, "SIGKILL");
    expect((await ended).exitStatus).toBe(137);
    await until("CRI knows", async () => {
      const { status: pod } = await runtime.podSandboxStatus({ podSandboxId: sandboxId });
      return pod?.state === PodSandboxState.SANDBOX_NOTREADY;
    });
    await runtime.removePodSandbox({ podSandboxId: sandboxId });
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });
});
