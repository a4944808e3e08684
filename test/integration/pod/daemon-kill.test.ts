/** The runtime is killed under its pods: `pod run` goes on with them, and so does the daemon that keeps a directory's pods on its own socket. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../support/containers.ts";
import { podText } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, startPodNode } from "../../support/pods.ts";
import { linesOf } from "../../support/processes.ts";

const FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.2; done";

describe.each(podDaemons())("%s", (kind) => {
  let node: PodNode;
  let manifests: string;
  beforeAll(async () => {
    node = await startPodNode(kind, ({ folder, podsRoot, logsRoot }) => {
      manifests = join(folder, "manifests");
      mkdirSync(manifests);
      // containerd leaves a table that it does not know alone.
      const keys = { manifests, pods_root: podsRoot, logs_root: logsRoot };
      const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
      return ['[plugins."io.bunkerd.node.v1.pods"]', ...lines].join("\n");
    });
  }, 60_000);
  afterAll(() => node[Symbol.asyncDispose]());

  const statusOf = async (name: string) =>
    JSON.parse((await node.pod(["status", name, "-o", "json"])).stdout).status;

  test("pod run: logs, probes and the end of the pod come through", async () => {
    const script = "echo begun; n=0; while test $n -lt 30; do n=$((n+1)); sleep 0.1; done; echo over; exit 6";
    const probe = { readinessProbe: { exec: { command: ["true"] }, periodSeconds: 1 } };
    const child = node.startPod(["run", "-f", "-"], podText("through", { app: script }, {}, { app: probe }));
    const lines: string[] = [];
    for await (const line of linesOf(child.stdout)) {
      lines.push(line);
      if (line === "[app] begun") await node.killDaemon();
    }
    expect({ code: await child.exited, lines }).toEqual({ code: 6, lines: ["[app] begun", "[app] over"] });
    expect((await statusOf("through")).containerStatuses[0].restartCount).toBe(0);
    expect((await node.pod(["rm", "through"])).code).toBe(0);
  }, 60_000);

  test("amid a post-start hook: the container is not killed, and the hook goes on", async () => {
    const shared = mkdtempSync(join(node.folder, "shared-"));
    const wait = (file: string) => `until test -e /data/${file}; do sleep 0.05; done`;
    const hook = `echo hook > /proc/1/fd/1; ${wait("go")}; touch /data/hooked`;
    const child = node.startPod(
      ["run", "-f", "-"],
      podText(
        "hooked",
        { app: `${wait("hooked")}; echo over; exit 6` },
        { volumes: [{ name: "data", hostPath: { path: shared } }] },
        {
          app: {
            volumeMounts: [{ name: "data", mountPath: "/data" }],
            lifecycle: { postStart: { exec: { command: ["sh", "-c", hook] } } },
          },
        },
      ),
    );
    const lines: string[] = [];
    const told = new Response(child.stderr).text();
    for await (const line of linesOf(child.stdout)) {
      lines.push(line);
      if (line !== "[app] hook") continue;
      await node.killDaemon();
      // The daemon has taken the container over, and its log with it, when it tells of it.
      await statusOf("hooked");
      writeFileSync(join(shared, "go"), "");
    }
    expect({ code: await child.exited, lines }).toEqual({ code: 6, lines: ["[app] hook", "[app] over"] });
    expect(await told).toContain(
      "Warning FailedPostStartHook hooked/app: PostStartHook is not waited for: the runtime does not answer",
    );
    expect(await told).not.toContain("Killing");
    expect((await node.pod(["rm", "hooked"])).code).toBe(0);
  }, 60_000);

  test.skipIf(kind !== "bunkerd")(
    "its own directory's pods go on, none twice, and are removed with their files",
    async () => {
      const names = ["kept0", "kept1", "kept2"];
      const runningId = (text: string): string => {
        const [{ state, containerID }] = JSON.parse(text).status.containerStatuses;
        return state.running === undefined ? "" : containerID;
      };
      const ids = async (): Promise<string[]> => {
        const all = await Promise.all(
          names.map(async (name) => (await node.pod(["status", name, "-o", "json"])).stdout),
        );
        return all.map((text) => (text === "" ? "" : runningId(text)));
      };
      for (const name of names)
        writeFileSync(
          join(manifests, `${name}.yaml`),
          podText(name, { app: FOREVER }, { restartPolicy: "Always", terminationGracePeriodSeconds: 1 }),
        );
      await until("the first", async () => (await ids()).some((id) => id !== ""));
      await node.killDaemon();
      await until("all of them", async () => (await ids()).every((id) => id !== ""));
      const before = await ids();
      await node.killDaemon();
      await until("the daemon", async () => (await node.pod(["ls"])).code === 0);
      expect(await ids()).toEqual(before);
      for (const name of names) rmSync(join(manifests, `${name}.yaml`));
      await until(
        "nothing",
        async () => (await node.pod(["ls", "-A"])).stdout.trim().split("\n").length === 1,
      );
    },
    60_000,
  );
});
