/** What `pod run` asks of the runtime for a pod of one container, by any client. */
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import {
  type ContainerConfig,
  type Mount,
  MountSchema,
  type PodSandboxConfig,
} from "#gen/runtime/v1/api_pb.ts";
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

/** What is asked for a pod of one container, but for its mounts. */
export async function bareConfigs(
  cri: CriClient,
  pod: Pod,
  logDirectory: string,
): Promise<{ sandbox: PodSandboxConfig; containerOf: (imageRef: string) => ContainerConfig }> {
  const [container] = pod.spec.containers;
  if (container === undefined) throw new Error("no container");
  const node = await observeNode(cri);
  const sandbox = sandboxConfig({ pod, node, attempt: 0, logDirectory, userNamespace: undefined });
  const containerOf = (imageRef: string): ContainerConfig =>
    containerConfig({
      ...{ pod, node, container, restartCount: 0, imageRef, env: new Map() },
      ...{ imageUser: { uid: 0n, username: "" }, userNamespace: undefined, targetId: undefined },
    });
  return { sandbox, containerOf };
}

/** From the first call until the container has written a line. */
export async function bareCalls(
  cri: CriClient,
  pod: Pod,
  logDirectory: string,
  mounts: readonly Mount[],
): Promise<BarePod> {
  const { sandbox, containerOf } = await bareConfigs(cri, pod, logDirectory);
  await cri.listPodSandbox({ labelSelector: { [POD_NAME]: pod.metadata.name } });
  const [id, image] = await Promise.all([cri.runPodSandbox(sandbox, ""), cri.imageStatus("box:1")]);
  await cri.podSandboxStatus(id);
  mkdirSync(join(logDirectory, "app"));
  const config = containerOf(image?.id ?? "");
  addMounts(config, mounts, undefined);
  const container = await cri.createContainer(id, config, sandbox);
  await cri.startContainer(container);
  await firstLine(join(logDirectory, "app/0.log"));
  return { id, container, cgroup: sandbox.linux?.cgroupParent ?? "" };
}

/** Resolves when the file holds something. @throws what `failed` does before */
export async function firstLine(log: string, failed: Promise<void> = Promise.resolve()): Promise<void> {
  let failure: unknown;
  failed.catch((error: unknown) => {
    failure = error;
  });
  while (!existsSync(log) || statSync(log).size === 0) {
    if (failure !== undefined) throw failure;
    await Bun.sleep(1);
  }
}
