/** A directory of manifests that bunkerd keeps running, on a runtime of either kind: created, changed, removed, and the daemon killed meanwhile. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { until } from "../../support/containers.ts";
import { type Daemon, startDaemon } from "../../support/daemons.ts";
import { podText } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, startPodNode } from "../../support/pods.ts";
import { run } from "../../support/processes.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] === "1";
const PODS = LONG ? 30 : 6;
const FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.2; done";
const METRICS = "127.0.0.1:10257";

if (!LONG) process.stdout.write("skipped: rotation of logs takes 10 s; BUNKERD_TEST_LONG=1 runs it\n");

describe.each(podDaemons())("%s", (kind) => {
  let node: PodNode;
  let keeper: Daemon;
  let manifests: string;
  const config = (): string =>
    [
      '[plugins."io.bunkerd.node.v1.pods"]',
      ...Object.entries({
        manifests,
        endpoint: node.daemon.socket,
        pods_root: node.podsRoot,
        logs_root: node.logsRoot,
      }).map(([key, value]) => `${key} = ${JSON.stringify(value)}`),
      'max_restart_period = "1s"\ncpu_manager_policy = "static"\nreserved_cpus = "0"\ncontainer_log_max_bytes = 65536\ncontainer_log_max_files = 2',
      `[metrics]\naddress = "${METRICS}"`,
    ].join("\n");
  beforeAll(async () => {
    node = await startPodNode(kind);
    manifests = join(node.folder, "manifests");
    mkdirSync(manifests);
    keeper = await startDaemon("bunkerd", { folder: join(node.folder, "k"), config: config() });
  }, 60_000);
  afterAll(async () => {
    await keeper.stop();
    await node[Symbol.asyncDispose]();
  });

  const drop = (name: string, text: string): void => {
    writeFileSync(join(node.folder, "new"), text);
    renameSync(join(node.folder, "new"), join(manifests, `${name}.yaml`));
  };
  interface Listed {
    readonly metadata: { readonly name: string; readonly uid: string };
    readonly status: {
      readonly phase: string;
      readonly containerStatuses: { readonly containerID: string; readonly restartCount: number }[];
    };
  }
  const pods = async (): Promise<Listed[]> => JSON.parse((await node.pod(["ls", "-o", "json"])).stdout).items;
  const running = async (count: number): Promise<Listed[]> =>
    until(
      () => keeper.log().slice(-1500),
      async () => {
        const all = await pods();
        return all.length === count && all.every(({ status }) => status.phase === "Running") && all;
      },
    );
  const idOf = (all: readonly Listed[], name: string) =>
    all.find(({ metadata }) => metadata.name === name)?.status.containerStatuses[0]?.containerID;
  test(`${PODS} manifests at once, the daemon killed meanwhile: each runs once; removed, nothing is left`, async () => {
    for (let n = 0; n < PODS; n++)
      drop(
        `many${n}`,
        podText(`many${n}`, { app: FOREVER }, { restartPolicy: "Always", terminationGracePeriodSeconds: 1 }),
      );
    await until("some pods", async () => (await pods()).length > PODS / 4);
    await keeper.kill();
    keeper = await startDaemon("bunkerd", { folder: join(node.folder, "k"), config: config() });
    const first = await running(PODS);
    expect(new Set(first.map(({ metadata }) => metadata.uid)).size).toBe(PODS);
    expect(first.map(({ status }) => status.containerStatuses[0]?.restartCount)).toEqual(Array(PODS).fill(0));
    await keeper.kill();
    keeper = await startDaemon("bunkerd", { folder: join(node.folder, "k"), config: config() });
    const again = await running(PODS);
    expect(again.map(({ metadata }) => idOf(again, metadata.name))).toEqual(
      first.map(({ metadata }) => idOf(first, metadata.name)),
    );
    // Each pod is a sandbox and a container.
    expect(await node.tasks()).toBe(2 * PODS);
    for (let n = 0; n < PODS; n++) rmSync(join(manifests, `many${n}.yaml`));
    await running(0);
    const left = (): string[] =>
      (readdirSync(node.podsRoot, { recursive: true }) as string[]).filter(
        (name) => !/^\.(?:locks|cpu)/.test(name),
      );
    await until(
      () => `folders: ${left().join(" ")}`,
      () => left().length === 0,
    );
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(node.podsRoot);
  }, 120_000);

  test("a broken change leaves the pod alone; a change of the image's command replaces it; one of CPU and memory is made in place", async () => {
    const sized = (memory: string, cpu: string) => ({
      app: { resources: { limits: { cpu, memory }, requests: { cpu: "100m", memory: "8Mi" } } },
    });
    const text = (word: string, memory: string, cpu = "500m") =>
      podText(
        "changes",
        { app: `echo ${word}; ${FOREVER}` },
        { terminationGracePeriodSeconds: 1 },
        sized(memory, cpu),
      );
    drop("other", podText("other", { app: FOREVER }, { terminationGracePeriodSeconds: 1 }));
    drop("changes", text("one", "64Mi"));
    const first = await running(2);
    drop("changes", text("one", "64Mi").slice(0, 80));
    await until("a word about it", () => /changes\.yaml:1/.test(keeper.log()));
    expect(await running(2)).toEqual(first);

    const files = "cpu.max cpu/cpu.cfs_quota_us memory.max memory/memory.limit_in_bytes";
    const limits = async (): Promise<string> => {
      const words = ["sh", "-c", `cd /sys/fs/cgroup; cat ${files} 2>/dev/null`];
      return (await node.pod(["exec", "changes", "--", ...words])).stdout.replace(/^(\d+) 100000$/m, "$1");
    };
    // The pod's own cgroup has to grow before its container's, and to shrink behind it.
    for (const [memory, cpu] of [
      [96, 700],
      [80, 300],
    ] as const) {
      drop("changes", text("one", `${memory}Mi`, `${cpu}m`));
      await until("the new limits", async () => (await limits()) === `${cpu * 100}\n${memory << 20}\n`);
      expect(idOf(await running(2), "changes")).toBe(idOf(first, "changes"));
    }

    drop("changes", text("two", "96Mi"));
    await until("the new text", async () => (await node.pod(["logs", "changes"])).stdout === "two\n");
    const last = await running(2);
    expect(idOf(last, "changes")).not.toBe(idOf(first, "changes"));
    expect(idOf(last, "other")).toBe(idOf(first, "other"));
    renameSync(join(manifests, "other.yaml"), join(manifests, "renamed.yaml"));
    const told = `is kept running by ${join(manifests, "renamed.yaml")}: remove that file`;
    await until("the new name", async () => (await node.pod(["rm", "other"])).stderr.includes(told));
    expect(idOf(await running(2), "other")).toBe(idOf(first, "other"));
    for (const name of ["changes", "renamed"]) rmSync(join(manifests, `${name}.yaml`));
    await running(0);
  }, 120_000);

  test("a machine that starts again runs its pods anew, as the same ones; a pod that somebody else runs is told of once", async () => {
    const text = podText("back", { app: `echo begun; ${FOREVER}` }, { restartPolicy: "Always" });
    drop("back", text);
    const [before] = await running(1);
    await keeper.kill();
    await node.reboot();
    keeper = await startDaemon("bunkerd", { folder: join(node.folder, "k"), config: config() });
    const [after] = await until(
      () => keeper.log().slice(-1500),
      async () => {
        const all = await running(1);
        return (
          idOf(all, "back") !== undefined && idOf(all, "back") !== idOf([before as Listed], "back") && all
        );
      },
    );
    expect(after?.metadata.uid).toBe(before?.metadata.uid as string);
    expect(after?.status.containerStatuses[0]?.restartCount).toBe(1);
    expect((await node.pod(["logs", "back", "-p"])).stdout).toBe("begun\n");

    const runs = node.startPod(["run", "-q", "--rm", "-f", "-"], podText("twice", { app: FOREVER }));
    await running(2);
    drop("twice", podText("twice", { app: FOREVER }, { terminationGracePeriodSeconds: 1 }));
    const words = "is run by another process";
    await until("a word about the other one", () => keeper.log().includes(words));
    // It is tried again each second.
    const since = Date.now();
    await until("more tries", () => Date.now() - since > 2100);
    runs.kill("SIGINT");
    await runs.exited;
    await running(2);
    expect(keeper.log().split(words)).toHaveLength(2);
    for (const name of ["back", "twice"]) rmSync(join(manifests, `${name}.yaml`));
    await running(0);
  }, 120_000);

  test("a container that ends is started again; counters count", async () => {
    drop(
      "heals",
      podText("heals", { app: FOREVER }, { restartPolicy: "Always", terminationGracePeriodSeconds: 1 }),
    );
    const [before] = await running(1);
    await node.pod(["exec", "heals", "--", "kill", "1"]);
    await until("a restart", async () => (await pods())[0]?.status.containerStatuses[0]?.restartCount === 1);
    expect((await running(1))[0]?.metadata.uid).toBe(before?.metadata.uid as string);
    const { stdout } = await run(["curl", "-s", `http://${METRICS}/v1/metrics`]);
    expect(
      Number(/^kubelet_started_containers_total\{container_type="container"\} (\d+)$/m.exec(stdout)?.[1]),
    ).toBeGreaterThan(1);
    rmSync(join(manifests, "heals.yaml"));
    await running(0);
  }, 120_000);

  test.skipIf(!LONG)(
    "a log that has grown too large is rotated; so many are kept",
    async () => {
      const script = `n=0; while test $n -lt 3; do n=$((n+1)); head -c 70000 /dev/zero | tr '\\0' x | fold -w 1000; echo line $n; sleep 4; done; ${FOREVER}`;
      drop(
        "writes",
        podText("writes", { app: script }, { restartPolicy: "Always", terminationGracePeriodSeconds: 1 }),
      );
      const [pod] = await running(1);
      const folder = join(node.logsRoot, `default_writes_${pod?.metadata.uid}`, "app");
      const files = (): string[] => readdirSync(folder).filter((name) => name.startsWith("0.log."));
      await until("a rotation", () => files().length === 1);
      const [first = ""] = files();
      await until("the next", () => files().length === 1 && files()[0] !== first);
      expect((await node.pod(["logs", "writes"])).stdout).toContain("line 2");
      rmSync(join(manifests, "writes.yaml"));
      await running(0);
    },
    120_000,
  );

  test.skipIf(availableParallelism() < 2)(
    "a guaranteed pod that asks for a whole CPU has it alone, and gives it back",
    async () => {
      const alone = { app: { resources: { limits: { cpu: "1", memory: "32Mi" } } } };
      const cpus = async (name: string): Promise<string> => {
        const { stdout } = await node.pod([
          "exec",
          name,
          "--",
          "grep",
          "Cpus_allowed_list",
          "/proc/self/status",
        ]);
        return stdout.split("\t")[1]?.trim() ?? "";
      };
      drop("shares", podText("shares", { app: FOREVER }, { terminationGracePeriodSeconds: 1 }));
      await running(1);
      const all = await cpus("shares");
      drop("alone", podText("alone", { app: FOREVER }, { terminationGracePeriodSeconds: 1 }, alone));
      await running(2);
      const own = await cpus("alone");
      expect(own).toMatch(/^[1-9]\d*$/);
      await until(
        "the rest",
        async () => !(await cpus("shares")).split(",").includes(own) && (await cpus("shares")) !== all,
      );
      const state = JSON.parse(readFileSync(join(node.podsRoot, ".cpu_manager_state"), "utf8"));
      expect(Object.values(state.entries)).toEqual([{ app: own }]);
      rmSync(join(manifests, "alone.yaml"));
      await until("all again", async () => (await cpus("shares")) === all);
      rmSync(join(manifests, "shares.yaml"));
      await running(0);
    },
    120_000,
  );
});
