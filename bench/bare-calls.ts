/** What `pod run` asks of the runtime for a pod of one container, by any client. */
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Mount, MountSchema } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../src/client/cri.ts";
import type { Pod } from "../src/pod/api/pod.ts";
import { observeNode } from "../src/pod/machine.ts";
import { addMounts, containerConfig } from "../src/pod/spec/container-config.ts";
import { POD_NAME } from "../src/pod/spec/labels.ts";
import { sandboxConfig } from "../src/pod/spec/sandbox-config.ts";

/** What was made, for whom removes it. */
export interface BarePod {
  readonly id: string;
  readonly container: string;
  readonly cgroup: string;
}

/** Makes the files that the container has mounted, without a pod's record. */
export function bareMounts(logDirectory: string): Mount[] {
  mkdirSync(logDirectory, { recursive: true });
  return ["etc-hosts:/etc/hosts", "message:/dev/termination-log"].map((text): Mount => {
    const [host = "", containerPath = ""] = text.split(":");
    const hostPath = join(logDirectory, host);
    writeFileSync(hostPath, "");
    return create(MountSchema, { hostPath, containerPath });
  });
}

/** From the first call until the container has written a line. */
export async function bareCalls(
  cri: CriClient,
  pod: Pod,
  logDirectory: string,
  mounts: readonly Mount[],
): Promise<BarePod> {
  const [app] = pod.spec.containers;
  if (app === undefined) throw new Error("no container");
  const node = await observeNode(cri);
  await cri.listPodSandbox({ labelSelector: { [POD_NAME]: pod.metadata.name } });
  const sandbox = sandboxConfig({ pod, node, attempt: 0, logDirectory, userNamespace: undefined });
  const [id, image] = await Promise.all([cri.runPodSandbox(sandbox, ""), cri.imageStatus("box:1")]);
  await cri.podSandboxStatus(id);
  mkdirSync(join(logDirectory, "app"));
  const config = containerConfig({
    ...{ pod, node, container: app, restartCount: 0, imageRef: image?.id ?? "", env: new Map() },
    ...{ imageUser: { uid: 0n, username: "" }, userNamespace: undefined, targetId: undefined },
  });
  addMounts(config, mounts, undefined);
  const container = await cri.createContainer(id, config, sandbox);
  await cri.startContainer(container);
  await firstLine(join(logDirectory, "app/0.log"));
  return { id, container, cgroup: sandbox.linux?.cgroupParent ?? "" };
}

/** Resolves when the file holds something. */
export async function firstLine(log: string): Promise<void> {
  while (!existsSync(log) || statSync(log).size === 0) await Bun.sleep(1);
}
