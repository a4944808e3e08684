/** A pod's network is taken down by another daemon than the one that set it up, from what either remembers of it. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { podConfig, podLeftovers, startCri } from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import type { DaemonKind } from "../../support/daemons.ts";
import { output } from "../../support/processes.ts";

useHostNetwork();

const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);

/** Addresses that are taken, records of the pod, interfaces on the bridge. */
async function left(folder: string, id: string): Promise<string[]> {
  const taken = names(join(folder, "ipam")).flatMap((network) =>
    names(join(folder, "ipam", network)).filter((name) => /^\d+\./.test(name)),
  );
  const veths = (await output(["ip", "-o", "link", "show", "type", "veth"]))
    .split("\n")
    .filter((line) => line !== "");
  return [...taken, ...names("/var/lib/cni/results").filter((name) => name.includes(id)), ...veths];
}

const WAYS: readonly (readonly [DaemonKind, DaemonKind])[] = [
  ["containerd-2.1", "bunkerd"],
  ["bunkerd", "containerd-2.1"],
];

test.each(WAYS)("set up by %s, taken down by %s", async (one, other) => {
  const first = await startCri(one);
  const { folder } = first.daemon;
  const { podSandboxId: id } = await first.runtime.runPodSandbox({ config: podConfig(first.daemon) });
  expect((await left(folder, id)).length).toBe(4);
  first.close();
  await first.daemon.halt();
  // To end an attachment, ours needs no configuration.
  if (other === "bunkerd") rmSync(join(folder, "net.d", "10-bridge.conflist"));
  await using second = await startCri(other, { folder });
  const { status } = await second.runtime.podSandboxStatus({ podSandboxId: id });
  expect(status?.state).toBe(PodSandboxState.SANDBOX_READY);
  await second.runtime.stopPodSandbox({ podSandboxId: id });
  expect(await left(folder, id)).toEqual([]);
  await second.runtime.removePodSandbox({ podSandboxId: id });
  expect(podLeftovers(second.daemon)).toEqual([]);
});
