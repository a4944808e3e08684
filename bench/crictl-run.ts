/** `crictl run` of a pod whose requests lie ready as JSON: a client in Go, from its start until the container has written a line. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DescMessage, type MessageShape, toJsonString } from "@bufbuild/protobuf";
import { ContainerConfigSchema, PodSandboxConfigSchema } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../src/client/cri.ts";
import type { Pod } from "../src/pod/api/pod.ts";
import { addMounts } from "../src/pod/spec/container-config.ts";
import type { PodNode } from "../test/support/pods.ts";
import { type BarePod, bareConfigs, bareMounts, firstLine } from "./bare-calls.ts";

/** As crictl reads it: Go's encoding/json, to which 64-bit numbers are numbers. */
function writeConfig<D extends DescMessage>(file: string, schema: D, message: MessageShape<D>): void {
  const text = toJsonString(schema, message, { useProtoFieldName: true, enumAsInteger: true });
  writeFileSync(file, text.replace(/:"(-?\d+)"/g, ":$1"));
}

export async function crictlRun(
  program: string,
  node: PodNode,
  cri: CriClient,
  pod: Pod,
): Promise<{ took: number; made: BarePod }> {
  const logDirectory = join(node.folder, "bare", pod.metadata.name);
  const mounts = bareMounts(logDirectory);
  mkdirSync(join(logDirectory, "app"));
  const { sandbox, containerOf } = await bareConfigs(cri, pod, logDirectory);
  const container = containerOf((await cri.imageStatus("box:1"))?.id ?? "");
  addMounts(container, mounts, undefined);
  const files = {
    sandbox: join(logDirectory, "sandbox.json"),
    container: join(logDirectory, "container.json"),
  };
  writeConfig(files.sandbox, PodSandboxConfigSchema, sandbox);
  writeConfig(files.container, ContainerConfigSchema, container);
  const socket = `unix://${node.daemon.socket}`;
  const startedAt = performance.now();
  const child = Bun.spawn(
    [program, "-r", socket, "-i", socket, "run", "--no-pull", files.container, files.sandbox],
    { stdin: "ignore", stdout: "pipe", stderr: "ignore" },
  );
  const failed = child.exited.then((code) => {
    if (code !== 0) throw new Error(`crictl run: exit code ${code}`);
  });
  await firstLine(join(logDirectory, "app/0.log"), failed);
  const took = performance.now() - startedAt;
  await failed;
  const id = (await child.stdout.text()).trim();
  const [listed] = await cri.listContainers({ id });
  if (listed === undefined) throw new Error("crictl run: no container");
  const cgroup = sandbox.linux?.cgroupParent ?? "";
  return { took, made: { id: listed.podSandboxId, container: id, cgroup } };
}
