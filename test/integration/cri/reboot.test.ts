/** A machine that starts again: what was in memory is gone, pods and containers are told as ended, removed, and made anew. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ContainerState, NamespaceMode, PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { unmountBelow } from "../../../src/linux/mountinfo.ts";
import { removeNetworkNamespace } from "../../../src/linux/netns.ts";
import {
  type CriDaemon,
  exited,
  podConfig,
  podLeftovers,
  removePods,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { dropContainers, endShims } from "../../support/cri-reference.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";
import { output, removeFolder } from "../../support/processes.ts";

useHostNetwork();

const FOREVER = "while true; do sleep 0.1; done";

async function netnsOf({ runtime }: CriDaemon, podSandboxId: string): Promise<string> {
  const { info } = await runtime.podSandboxStatus({ podSandboxId, verbose: true });
  return JSON.parse(info["info"] ?? "{}").sandboxMetadata.Metadata.NetNSPath;
}

/** Processes, mounts, namespaces, interfaces, cgroups, what runc knows and the state directory go; the disk stays. */
async function turnOff(cri: CriDaemon, namespaces: readonly string[], ids: readonly string[]): Promise<void> {
  const { folder } = cri.daemon;
  cri.close();
  await cri.daemon.kill();
  endShims(cri.daemon);
  await dropContainers(ids);
  unmountBelow(folder);
  for (const path of namespaces) removeNetworkNamespace(path);
  await output(["ip", "link", "del", `cni-${folder.slice(-6)}`]);
  rmSync(join(folder, "state"), { recursive: true });
  mkdirSync(join(folder, "state"));
}

/** Addresses that the bridge's pods hold. */
function addresses(folder: string): string[] {
  const path = join(folder, "ipam", `net-${folder.slice(-6)}`);
  return existsSync(path) ? readdirSync(path).filter((file) => /^\d/.test(file)) : [];
}

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  test("pods that a reboot has ended are told as such, removed, and made anew", async () => {
    let cri = await startCri(kind);
    const { folder } = cri.daemon;
    try {
      const config = podConfig(cri.daemon);
      const network = { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } };
      const hostConfig = podConfig(cri.daemon, { linux: network });
      const { podSandboxId: own } = await cri.runtime.runPodSandbox({ config });
      const { podSandboxId: host } = await cri.runtime.runPodSandbox({ config: hostConfig });
      const runs = await runContainer(cri, own, config, script("runs", FOREVER));
      const ended = await runContainer(cri, own, config, script("ended", "exit 5"));
      await exited(cri, ended);
      const made = { podSandboxId: own, sandboxConfig: config, config: script("made", FOREVER) };
      const { containerId: created } = await cri.runtime.createContainer(made);
      const other = await runContainer(cri, host, hostConfig, script("other", FOREVER));
      expect(addresses(folder)).toHaveLength(1);
      await turnOff(cri, [await netnsOf(cri, own)], [own, host, runs, other, ended, created]);

      cri = await startCri(kind, { folder });
      const { runtime } = cri;
      for (const id of [own, host]) {
        const { status } = await runtime.podSandboxStatus({ podSandboxId: id });
        expect(status).toMatchObject({ state: PodSandboxState.SANDBOX_NOTREADY });
      }
      const { CONTAINER_EXITED, CONTAINER_CREATED } = ContainerState;
      const tell = async (containerId: string) => (await runtime.containerStatus({ containerId })).status;
      const lost = { state: CONTAINER_EXITED, exitCode: 255, reason: "Unknown" };
      expect(await tell(runs)).toMatchObject(lost);
      expect(await tell(other)).toMatchObject(lost);
      const before = await tell(ended);
      expect(before).toMatchObject({ state: CONTAINER_EXITED, exitCode: 5, reason: "Error" });
      // containerd may say that it ended before it began.
      if (kind === "bunkerd") expect(before?.finishedAt).toBeGreaterThanOrEqual(before?.startedAt ?? 0n);
      expect(await tell(created)).toMatchObject({ state: CONTAINER_CREATED });
      const refused = (call: Promise<unknown>) => call.then(() => "done", String);
      expect(await refused(runtime.startContainer({ containerId: created }))).toContain("is not running");
      expect(await refused(runtime.execSync({ containerId: runs, cmd: ["true"] }))).toContain(
        "container is in CONTAINER_EXITED state",
      );
      await runtime.stopContainer({ containerId: runs, timeout: 1n });
      const { info } = await runtime.podSandboxStatus({ podSandboxId: own, verbose: true });
      expect(JSON.parse(info["info"] ?? "{}")).toMatchObject({
        pid: 0,
        processStatus: "deleted",
        netNamespaceClosed: true,
      });
      expect((await runtime.listPodSandboxStats({})).stats).toEqual([]);

      await runtime.stopPodSandbox({ podSandboxId: own });
      expect(addresses(folder)).toEqual([]);
      const again = { ...config, metadata: { ...config.metadata, attempt: 1 } } as typeof config;
      const { podSandboxId: next } = await runtime.runPodSandbox({ config: again });
      await runContainer(cri, next, again, script("new", FOREVER));
      expect(addresses(folder)).toHaveLength(1);
      await removePods(runtime);
      expect(podLeftovers(cri.daemon)).toEqual([]);
      expect(addresses(folder)).toEqual([]);
      const kept: string[] = [];
      for await (const { info } of cri
        .client(Snapshots)
        .list({ snapshotter: "overlayfs" }, inNamespace("k8s.io")))
        kept.push(...info.map(({ name }) => name));
      expect(kept.filter((name) => !name.startsWith("sha256:"))).toEqual([]);
    } finally {
      await cri[Symbol.asyncDispose]();
      removeFolder(folder);
    }
  }, 60_000);
});
