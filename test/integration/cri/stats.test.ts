/** Stats of pods and containers, from the kernel's own files; the reference, which asks its shims, beside ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { shimsOf, until } from "../../support/containers.ts";
import { type CriDaemon, podConfig, runContainer, script, startCri } from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { removeCgroup } from "../../support/cri-traces.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { errorOf } from "../../support/grpc.ts";

useHostNetwork();

const BUSY = "dd if=/dev/zero of=/file bs=1M count=5; while true; do :; done";

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  let busy: string;
  let pod: string;
  let over: string;
  let cgroupParent: string;
  beforeAll(async () => {
    cri = await startCri(kind);
    cgroupParent = `/bkt-stats-${cri.daemon.pid}`;
    const config = podConfig(cri.daemon, { labels: { app: "busy" }, linux: { cgroupParent } });
    pod = (await cri.runtime.runPodSandbox({ config })).podSandboxId;
    busy = await runContainer(cri, pod, config, script("busy", BUSY, { labels: { tier: "front" } }));
    over = await runContainer(cri, pod, config, script("over", "exit 0"));
    await until("its end", async () => {
      const { status } = await cri.runtime.containerStatus({ containerId: over });
      return (status?.finishedAt ?? 0n) > 0n;
    });
  });
  afterAll(async () => {
    await cri[Symbol.asyncDispose]();
    removeCgroup(cgroupParent);
  });

  test("one that runs uses the machine, one that has ended does not", async () => {
    const { runtime } = cri;
    const { stats } = await runtime.containerStats({ containerId: busy.slice(0, 20) });
    expect(stats?.attributes).toMatchObject({ id: busy, labels: { tier: "front" } });
    expect(stats?.cpu?.usageCoreNanoSeconds?.value).toBeGreaterThan(0n);
    const { usageBytes, workingSetBytes, availableBytes } = stats?.memory ?? {};
    expect(usageBytes?.value).toBeGreaterThan(0n);
    expect(workingSetBytes?.value).toBeLessThanOrEqual(usageBytes?.value ?? 0n);
    expect(availableBytes?.value).toBe(0n);
    expect(stats?.writableLayer?.fsId?.mountpoint).toEndWith("io.containerd.snapshotter.v1.overlayfs");
    const all = (await runtime.listContainerStats({})).stats;
    expect(all.map(({ attributes }) => attributes?.id).sort()).toEqual([busy, over].sort());
    const ended = all.find(({ attributes }) => attributes?.id === over);
    expect([ended?.cpu, ended?.memory]).toEqual([undefined, undefined]);
  });

  test("a rate is told once there are two samples; what was written is counted", async () => {
    const { runtime } = cri;
    const filter = { labelSelector: { tier: "front" } };
    await until("a rate", async () => {
      const [stats] = (await runtime.listContainerStats({ filter })).stats;
      return (stats?.cpu?.usageNanoCores?.value ?? 0n) > 10_000_000n;
    });
    await until("the file is counted", async () => {
      const [stats] = (await runtime.listContainerStats({ filter })).stats;
      return (stats?.writableLayer?.usedBytes?.value ?? 0n) >= 5n << 20n;
    });
  }, 40_000);

  test("what is asked for by filter", async () => {
    const { runtime } = cri;
    const count = async (filter: object) => (await runtime.listContainerStats({ filter })).stats.length;
    expect(await count({ id: busy.slice(0, 12) })).toBe(1);
    expect(await count({ podSandboxId: pod.slice(0, 12) })).toBe(2);
    expect(await count({ labelSelector: { tier: "back" } })).toBe(0);
    expect(await errorOf(runtime.containerStats({ containerId: "nobody" }))).toEqual({
      code: 5,
      message: "failed to find container: not found",
    });
    expect((await errorOf(runtime.containerStats({ containerId: over }))).message).toBe(
      "unexpected metrics response: []",
    );
  });

  test("a pod's network, processes and containers", async () => {
    const { runtime } = cri;
    const { stats } = await runtime.podSandboxStats({ podSandboxId: pod });
    expect(stats?.attributes).toMatchObject({ id: pod, labels: { app: "busy" } });
    expect(stats?.linux?.network?.defaultInterface?.name).toBe("eth0");
    // 2.1 tells of no other interfaces, which is its successors' way.
    if (kind === "bunkerd")
      expect(stats?.linux?.network?.interfaces.map(({ name }) => name)).toEqual(["eth0"]);
    expect(stats?.linux?.process?.processCount?.value).toBe(1n);
    expect(stats?.linux?.containers.length).toBe(2);
    const own = stats?.linux?.containers.find(({ attributes }) => attributes?.id === busy);
    expect(stats?.linux?.cpu?.usageCoreNanoSeconds?.value).toBeGreaterThanOrEqual(
      own?.cpu?.usageCoreNanoSeconds?.value ?? 0n,
    );
    const count = async (filter: object) => (await runtime.listPodSandboxStats({ filter })).stats.length;
    expect(await count({ id: pod.slice(0, 12) })).toBe(1);
    expect(await count({ labelSelector: { app: "idle" } })).toBe(0);
  });

  // containerd asks its shims.
  if (kind === "bunkerd")
    test("no shim is asked: one that hangs holds up no stats", async () => {
      const { runtime } = cri;
      const shim = shimsOf("k8s.io").find(({ id }) => id === pod);
      if (shim === undefined) throw new Error("the pod has no shim");
      process.kill(shim.pid, "SIGSTOP");
      try {
        const soon = { timeoutMs: 3000 };
        const { stats } = await runtime.containerStats({ containerId: busy }, soon);
        expect(stats?.cpu?.usageCoreNanoSeconds?.value).toBeGreaterThan(0n);
        expect((await runtime.listContainerStats({}, soon)).stats).toHaveLength(2);
        expect(
          (await runtime.podSandboxStats({ podSandboxId: pod }, soon)).stats?.linux?.containers,
        ).toHaveLength(2);
        expect((await runtime.listPodSandboxStats({}, soon)).stats).toHaveLength(1);
        expect((await runtime.listPodSandboxMetrics({}, soon)).podMetrics).toHaveLength(1);
        expect((await runtime.listContainers({}, soon)).containers).toHaveLength(2);
      } finally {
        process.kill(shim.pid, "SIGCONT");
      }
    });

  test("a pod that has stopped has none", async () => {
    const { runtime } = cri;
    await runtime.stopPodSandbox({ podSandboxId: pod });
    expect((await runtime.listPodSandboxStats({})).stats).toEqual([]);
    const { code } = await errorOf(runtime.podSandboxStats({ podSandboxId: pod }));
    expect(code).toBe(14);
  });
});
