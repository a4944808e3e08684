/** `containerd.services.sandbox.v1.Controller`, all of its methods, on a shim's own sandboxes and on pods. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Controller } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { packSpec } from "../../../src/client/spec.ts";
import { until } from "../../support/containers.ts";
import { type CriDaemon, podConfig, podLeftovers, prepareCri, startCri } from "../../support/cri.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";
import { enterHostNetwork } from "../../support/netns.ts";

let host: ReturnType<typeof enterHostNetwork>;
beforeAll(async () => {
  await prepareCri();
  host = enterHostNetwork();
});
afterAll(() => host[Symbol.dispose]());

const scope = inNamespace("k8s.io");

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  beforeAll(async () => {
    cri = await startCri(kind);
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
