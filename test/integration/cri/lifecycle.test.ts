/** Pods and containers from their making to their removal, on real shim, runc and CNI bridge; the reference beside ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ContainerState, NamespaceMode, PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import {
  type CriDaemon,
  exited,
  importImage,
  logOf,
  podConfig,
  podLeftovers,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { daemonKinds } from "../../support/daemons.ts";

useHostNetwork();

const hostNetwork = { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } };

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  beforeAll(async () => {
    cri = await startCri(kind);
  });
  afterAll(async () => {
    await cri[Symbol.asyncDispose]();
  });

  test("a pod on the host's network runs a container, whose log and end are told", async () => {
    const { runtime } = cri;
    const config = podConfig(cri.daemon, hostNetwork);
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const { status: pod } = await runtime.podSandboxStatus({ podSandboxId });
    expect(pod?.state).toBe(PodSandboxState.SANDBOX_READY);
    const container = script("hello", "echo out; echo err >&2; exit 3");
    const containerId = await runContainer(cri, podSandboxId, config, container);
    const status = await exited(cri, containerId);
    expect(status).toMatchObject({ exitCode: 3, reason: "Error", state: ContainerState.CONTAINER_EXITED });
    expect(logOf(config, container).split("\n").sort()).toEqual(["", "err", "out"]);
    await runtime.removeContainer({ containerId });
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect((await runtime.listPodSandbox({})).items).toEqual([]);
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });

  test("a pod has an address of its own, which its containers share", async () => {
    const { runtime } = cri;
    const config = podConfig(cri.daemon, { hostname: "inside" });
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const { status: pod } = await runtime.podSandboxStatus({ podSandboxId });
    expect(pod?.network?.ip).toMatch(/^10\.88\./);
    const container = script("net", "hostname; ip -4 -o addr show dev eth0");
    await exited(cri, await runContainer(cri, podSandboxId, config, container));
    expect(logOf(config, container)).toContain("inside\n");
    expect(logOf(config, container)).toContain(`inet ${pod?.network?.ip}/16`);
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.stopPodSandbox({ podSandboxId });
    expect((await runtime.podSandboxStatus({ podSandboxId })).status).toMatchObject({
      state: PodSandboxState.SANDBOX_NOTREADY,
      network: { ip: "" },
    });
    await runtime.removePodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });

  test("an image that is here but not unpacked is, when a container needs it; its volumes are filled", async () => {
    const { runtime } = cri;
    const name = "docker.io/library/packed:1";
    const volume = { Cmd: ["/bin/sh"], Env: ["PATH=/bin"], Volumes: { "/data": {} } };
    const file = { name: "data/greeting", data: "from the image\n" };
    await importImage(cri.daemon, name, volume, [file], "k8s.io", ["--no-unpack"]);
    const config = podConfig(cri.daemon, hostNetwork);
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const container = script("packed", "cat /data/greeting; echo more > /data/greeting", {
      image: { image: name },
    });
    expect(await exited(cri, await runContainer(cri, podSandboxId, config, container))).toMatchObject({
      exitCode: 0,
    });
    expect(logOf(config, container)).toBe("from the image\n");
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });
});
