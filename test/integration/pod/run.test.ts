/** Pods in the foreground on real runtimes: order, logs, exit codes, Ctrl-C, and what is left. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../support/containers.ts";
import { CRIO } from "../../support/crio.ts";
import { podText } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, startPodNode } from "../../support/pods.ts";
import { linesOf, run } from "../../support/processes.ts";

describe.each(podDaemons())("%s", (kind) => {
  let node: PodNode;
  beforeAll(async () => {
    node = await startPodNode(kind);
  }, 60_000);
  afterAll(() => node[Symbol.asyncDispose]());

  const events = (stderr: string): string[] =>
    stderr
      .split("\n")
      .filter((line) => /^(?:Normal|Warning) /.test(line))
      .map((line) => line.replace(/: .*/, ""));

  /** Nothing of any pod is left: containers, sandboxes, folders, mounts, cgroups. */
  async function expectNothingLeft(): Promise<void> {
    expect((await node.pod(["ls", "-A"])).stdout.trim().split("\n")).toHaveLength(1);
    expect(readdirSync(node.podsRoot).filter((name) => name !== ".locks")).toEqual([]);
    expect(readdirSync(node.logsRoot)).toEqual([]);
    const mounts = readFileSync("/proc/self/mountinfo", "utf8");
    expect(mounts).not.toContain(node.podsRoot);
  }

  test("init containers, then ordinary ones with a hook: order, logs, the first failure's code", async () => {
    const mounts = { volumeMounts: [{ name: "data", mountPath: "/data" }] };
    const init = (name: string, script: string) => ({
      name,
      image: "box:1",
      command: ["sh", "-c", script],
      ...mounts,
    });
    const hook = {
      lifecycle: { postStart: { exec: { command: ["sh", "-c", "echo hooked > /data/hook"] } } },
    };
    const text = podText(
      "demo",
      {
        app: "until test -s /data/hook; do sleep 0.05; done; cat /data/*; exit 3",
        side: "echo err >&2; sleep 0.3; exit 4",
      },
      {
        initContainers: [
          init("first", "echo 1; echo one > /data/a"),
          init("second", "cat /data/a; echo two >> /data/a"),
        ],
        volumes: [{ name: "data", emptyDir: {} }],
      },
      { app: { ...mounts, ...hook } },
    );
    const ran = await node.pod(["run", "-f", "-"], text);
    expect(ran.code).toBe(3);
    expect(ran.stdout.split("\n").sort()).toEqual([
      "",
      "[app] hooked",
      "[app] one",
      "[app] two",
      "[first] 1",
      "[second] one",
    ]);
    expect(ran.stderr).toContain("[side] err");
    expect(events(ran.stderr)).toEqual(
      ["first", "second", "app", "side"].flatMap((name) => [
        `Normal Pulled demo/${name}`,
        `Normal Created demo/${name}`,
        `Normal Started demo/${name}`,
      ]),
    );
    const status = JSON.parse((await node.pod(["status", "demo", "-o", "json"])).stdout).status;
    expect(status.phase).toBe("Failed");
    expect(
      status.containerStatuses.map(
        (each: { state: { terminated: { exitCode: number } } }) => each.state.terminated.exitCode,
      ),
    ).toEqual([3, 4]);
    expect((await node.pod(["logs", "demo", "app", "--tail", "1"])).stdout).toBe("hooked\n");
    expect((await node.pod(["rm", "demo"])).stdout).toBe("pod/demo removed\n");
    await expectNothingLeft();
  }, 60_000);

  test("Ctrl-C ends a pod with its grace, and its pre-stop hook", async () => {
    const preStop = {
      lifecycle: { preStop: { exec: { command: ["sh", "-c", "echo hook > /proc/1/fd/1"] } } },
    };
    const script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    const child = node.startPod(
      ["run", "--rm", "-f", "-"],
      podText("ends", { app: script }, {}, { app: preStop }),
    );
    const seen: string[] = [];
    for await (const line of linesOf(child.stdout)) {
      seen.push(line);
      if (line === "[app] ready") child.kill("SIGINT");
    }
    expect(await child.exited).toBe(130);
    expect(seen).toEqual(["[app] ready", "[app] hook", "[app] bye"]);
    await expectNothingLeft();
  }, 60_000);

  test("a second Ctrl-C waits for neither grace nor hook", async () => {
    const hooks = { lifecycle: { preStop: { sleep: { seconds: 60 } } } };
    const script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    const grace = { terminationGracePeriodSeconds: 100 };
    const child = node.startPod(
      ["run", "--rm", "-f", "-"],
      podText("hasty", { app: script }, grace, { app: hooks }),
    );
    const seen: string[] = [];
    const read = async (): Promise<void> => {
      for await (const line of linesOf(child.stdout)) {
        seen.push(line);
        if (line === "[app] ready") child.kill("SIGINT");
      }
    };
    const reading = read();
    for await (const line of linesOf(child.stderr)) if (line.includes("Killing")) child.kill("SIGINT");
    await reading;
    expect(await child.exited).toBe(130);
    expect(seen).toEqual(["[app] ready", "[app] bye"]);
    await expectNothingLeft();
  }, 60_000);

  test("Ctrl-C while the pod's sandbox is made, and a reader that goes: nothing is left", async () => {
    const text = podText("early", { app: "seq 1 100000; sleep 100" }, { terminationGracePeriodSeconds: 0 });
    for (const wait of [0, 50]) {
      const child = node.startPod(["run", "--rm", "-f", "-"], text);
      await until("its record", () => readdirSync(node.podsRoot).some((name) => !name.startsWith(".")));
      await Bun.sleep(wait);
      child.kill("SIGINT");
      expect(await child.exited).toBe(130);
      await expectNothingLeft();
    }
    const child = node.startPod(["run", "--rm", "-f", "-"], text);
    for await (const line of linesOf(child.stdout)) if (line === "[app] 1") break;
    expect(await child.exited).toBe(0);
    await expectNothingLeft();
  }, 60_000);

  test("an init container that fails ends the pod; later containers never begin", async () => {
    const init = [{ name: "bad", image: "box:1", command: ["sh", "-c", "exit 9"] }];
    const ran = await node.pod(
      ["run", "--rm", "-f", "-"],
      podText("never", { app: "echo no" }, { initContainers: init }),
    );
    expect({ code: ran.code, stdout: ran.stdout }).toEqual({ code: 9, stdout: "" });
    await expectNothingLeft();
  }, 60_000);

  test("a post-start hook that fails kills its container", async () => {
    const hook = { lifecycle: { postStart: { exec: { command: ["sh", "-c", "echo secret >&2; exit 5"] } } } };
    const ran = await node.pod(
      ["run", "--rm", "-f", "-"],
      podText("hook", { app: "sleep 100" }, { terminationGracePeriodSeconds: 0 }, { app: hook }),
    );
    expect(ran.code).toBe(137);
    expect(events(ran.stderr).slice(-2)).toEqual([
      "Warning FailedPostStartHook hook/app",
      "Normal Killing hook/app",
    ]);
    expect(ran.stderr).not.toContain("secret");
  }, 60_000);

  test("kill -9 of pod run: a second one carries on, rm takes all of it", async () => {
    const text = podText("kept", { app: "echo begun; while :; do sleep 0.1; done" });
    const first = node.startPod(["run", "-f", "-"], text);
    for await (const line of linesOf(first.stdout)) if (line === "[app] begun") break;
    const id = JSON.parse((await node.pod(["status", "kept", "-o", "json"])).stdout).status
      .containerStatuses[0].containerID;
    const refused = await node.pod(["run", "-f", "-"], text);
    expect(refused.stderr).toContain(
      'pod "kept" in namespace "default" is run by another process: failed precondition',
    );
    first.kill("SIGKILL");
    await first.exited;
    const second = node.startPod(["run", "-f", "-"], text);
    for await (const line of linesOf(second.stdout)) if (line === "[app] begun") break;
    const again = JSON.parse((await node.pod(["status", "kept", "-o", "json"])).stdout).status
      .containerStatuses[0].containerID;
    expect(again).toBe(id);
    expect((await node.pod(["rm", "kept", "--grace-period", "0"])).code).toBe(0);
    await second.exited;
    await expectNothingLeft();
  }, 60_000);

  test("kill -9 of pod run amid a hook: the hook ends, a second one carries on, rm takes all of it", async () => {
    const mark = `sleep ${1_000_000 + process.pid}`;
    const hooks = { lifecycle: { postStart: { exec: { command: mark.split(" ") } } } };
    const text = podText(
      "hooks",
      { app: "trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done" },
      {},
      { app: hooks },
    );
    const runs = async () => (await run(["ps", "-eo", "args"])).stdout.split("\n").includes(mark);
    const first = node.startPod(["run", "-f", "-"], text);
    await until("the hook", runs);
    first.kill("SIGKILL");
    await first.exited;
    // CRI-O lets a command end whose caller has gone.
    if (CRIO === undefined) await until("the hook's end", async () => !(await runs()));
    const second = node.startPod(["run", "-f", "-"], text);
    for await (const line of linesOf(second.stdout)) if (line === "[app] begun") break;
    expect((await node.pod(["rm", "hooks", "--grace-period", "0"])).code).toBe(0);
    await second.exited;
    await expectNothingLeft();
  }, 60_000);

  test.each([
    "pod.beforeRecord",
    "pod.afterSandbox",
    "pod.afterCreate",
    "pod.afterStart",
    "pod.beforeRemoval",
  ])(
    "killed at %s: the next run converges",
    async (point) => {
      process.env["BUNKERD_FAILPOINTS"] = `${point}=kill`;
      const text = podText("cut", { app: "echo ran" });
      const cut = await node
        .pod(["run", "--rm", "-f", "-"], text)
        .finally(() => delete process.env["BUNKERD_FAILPOINTS"]);
      expect(cut.code).not.toBe(0);
      const again = await node.pod(["run", "--rm", "-f", "-"], text);
      expect({ code: again.code, ran: again.stdout.split("\n").includes("[app] ran") }).toEqual({
        code: 0,
        ran: true,
      });
      await expectNothingLeft();
    },
    60_000,
  );

  test("several pods side by side, with their references from another file", async () => {
    const pods = ["one", "two"].map((name) =>
      podText(
        name,
        { app: "echo $WORD" },
        {},
        { app: { env: [{ name: "WORD", valueFrom: { configMapKeyRef: { name: "words", key: name } } }] } },
      ),
    );
    const words = JSON.stringify({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "words" },
      data: { one: "eins", two: "zwei" },
    });
    const file = join(node.folder, "words.json");
    writeFileSync(file, words);
    const ran = await node.pod(["run", "--rm", "-f", "-", "-f", file], pods.join("\n---\n"));
    expect({ code: ran.code, lines: ran.stdout.trim().split("\n").sort() }).toEqual({
      code: 0,
      lines: ["[one/app] eins", "[two/app] zwei"],
    });
    await expectNothingLeft();
  }, 60_000);

  test("bad input: what is wrong, in the terms of the file", async () => {
    const run = async (text: string) => {
      const { code, stderr } = await node.pod(["run", "-f", "-"], text);
      return [code, stderr.trim()];
    };
    expect(await run("a: b: c")).toEqual([
      1,
      'bunkerd: stdin:1:5: bad indentation of a mapping entry, or ": " in a text that is not in quotes',
    ]);
    expect(await run("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}")).toEqual([
      1,
      "bunkerd: stdin: there is no Pod in it",
    ]);
    expect(await run(podText("x", { app: "true" }, { hostNetwrk: true }))).toEqual([
      1,
      "bunkerd: stdin:1: spec.hostNetwrk: unknown field, did you mean hostNetwork?",
    ]);
    writeFileSync(join(node.folder, "one.yaml"), podText("x", { app: "true" }));
    const twice = await node.pod(
      ["run", "-f", join(node.folder, "one.yaml"), "-f", "-"],
      podText("x", { app: "true" }),
    );
    expect(twice.stderr).toContain('one.yaml, stdin: Pod "x" stands there twice');
    const missing = await node.pod(["run", "-f", join(node.folder, "none.yaml")]);
    expect(missing.stderr).toContain("none.yaml: no such file or directory");
    const nobody = await node.pod(["status", "nobody"]);
    expect(nobody.stderr.trim()).toBe('bunkerd: pod "nobody" in namespace "default": not found');
    expect(
      existsSync(node.podsRoot) ? readdirSync(node.podsRoot).filter((name) => name !== ".locks") : [],
    ).toEqual([]);
  }, 60_000);

  test("no runtime: one line", async () => {
    const ran = await node.pod(["ls", "--runtime-endpoint", join(node.folder, "no.sock")]);
    expect({ code: ran.code, lines: ran.stderr.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
  });
});
