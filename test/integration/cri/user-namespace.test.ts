/** Pods and containers of a user namespace really run, on containerd 2.1 and on bunkerd: by the same runc, seen from outside alike. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, readFileSync, readlinkSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { ContainerConfigSchema, ContainerState, NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import { until } from "../../support/containers.ts";
import { startCriReference } from "../../support/cri-reference.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { output, removeFolder, temporaryFolder } from "../../support/processes.ts";

setDefaultTimeout(60_000);

const IMAGE = "docker.io/library/box:1";
const MAPPING = { hostId: 100_000, containerId: 0, length: 65_536 };
const usernsOptions = { mode: NamespaceMode.POD, uids: [MAPPING], gids: [MAPPING] };
const linux = { securityContext: { namespaceOptions: { usernsOptions } } };
const folders: string[] = [];

afterAll(() => {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  for (const folder of folders) {
    expect(mounts).not.toContain(folder);
    removeFolder(folder);
  }
});

test.each(daemonKinds("containerd-2.1", "bunkerd"))(
  "%s: a pod with a user namespace, and a container in it",
  async (kind) => {
    const folder = temporaryFolder();
    folders.push(folder);
    // The container's root is nobody outside, and must reach its root file system.
    chmodSync(folder, 0o755);
    const config = { Entrypoint: ["/bin/busybox"], Cmd: ["sleep", "1000"] };
    const plugin = "netns_mounts_under_state_dir = true";
    const images = [{ name: IMAGE, config }];
    await using daemon = await startCriReference({ kind, folder, plugin, handlers: {}, images });
    const pod = await daemon.runPod({ metadata: { name: "p", namespace: "n", uid: "u" }, linux });
    expect(readFileSync(`/proc/${pod.pid}/uid_map`, "utf8").trim().split(/\s+/)).toEqual([
      "0",
      "100000",
      "65536",
    ]);
    const owners = await output([
      "lsns",
      "--noheadings",
      "--type",
      "net",
      "--output",
      "ONS",
      "--task",
      String(pod.pid),
    ]);
    expect(readlinkSync(`/proc/${pod.pid}/ns/user`)).toBe(`user:[${owners.trim()}]`);

    // Debian 12's runc shifts no mounts: the pod's files, which would be shifted, are left out.
    const mounts = ["hosts", "hostname", "resolv.conf"].map((name) => ({
      containerPath: `/etc/${name}`,
      hostPath: "/etc/hostname",
    }));
    const container = create(ContainerConfigSchema, {
      mounts,
      metadata: { name: "c" },
      image: { image: IMAGE },
      linux,
    });
    const created = { podSandboxId: pod.id, config: container, sandboxConfig: pod.config };
    const { containerId } = await daemon.runtime.createContainer(created);
    await daemon.runtime.startContainer({ containerId });
    const { info } = await daemon.runtime.containerStatus({ containerId, verbose: true });
    const { pid } = JSON.parse(info["info"] ?? "{}");
    expect(readlinkSync(`/proc/${pid}/ns/user`)).toBe(readlinkSync(`/proc/${pod.pid}/ns/user`));
    expect(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]).toBe("100000");
    await daemon.runtime.stopContainer({ containerId });
    await until("exited", async () => {
      const { status } = await daemon.runtime.containerStatus({ containerId });
      return status?.state === ContainerState.CONTAINER_EXITED;
    });
  },
);
