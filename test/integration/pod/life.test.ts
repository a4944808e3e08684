/** The life of a pod: restarts, probes, sidecars, ephemeral containers, and its streams. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../support/containers.ts";
import { podNature } from "../../support/pod-natures.ts";
import { box, podText } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, startPodNode } from "../../support/pods.ts";
import { linesOf, run } from "../../support/processes.ts";

const DATA = { volumeMounts: [{ name: "data", mountPath: "/data" }] };
const VOLUMES = { volumes: [{ name: "data", emptyDir: {} }] };
const LEFT = 'It is left as it is: "pod apply" goes on with it, "pod rm" removes it';
const FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

describe.each(podDaemons())("%s", (kind) => {
  const { runtimeName } = podNature(kind);
  let node: PodNode;
  beforeAll(async () => {
    node = await startPodNode(kind);
  }, 60_000);
  afterAll(() => node[Symbol.asyncDispose]());

  const RUN = ["run", "--max-restart-period", "200ms", "-f", "-"];

  /** Runs a pod in the background until a line comes on one of its outputs; ends with the rest of what it says. */
  async function runUntil(text: string, wanted: string | RegExp) {
    const child = node.startPod(RUN, text);
    const found = Promise.withResolvers<void>();
    const lines: string[] = [];
    const read = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
      for await (const line of linesOf(stream)) {
        lines.push(line);
        if (typeof wanted === "string" ? line.includes(wanted) : wanted.test(line)) found.resolve();
      }
    };
    const outputs = Promise.all([read(child.stdout), read(child.stderr)]);
    void outputs.then(() => found.reject(new Error(`never ${wanted}: ${lines.join("\n")}`)));
    await found.promise;
    return {
      child,
      lines,
      async end(): Promise<string[]> {
        child.kill("SIGINT");
        await child.exited;
        await outputs;
        return lines;
      },
    };
  }

  const events = (lines: readonly string[]): string[] =>
    lines
      .filter((line) => /^(?:Normal|Warning) /.test(line))
      .map((line) => line.split(" ").slice(1, 3).join(" ").replace(/:$/, ""));

  const statusOf = async (name: string) =>
    JSON.parse((await node.pod(["status", name, "-o", "json"])).stdout).status;

  test("OnFailure: restarted with back-off until it succeeds; earlier logs stay", async () => {
    const script = "echo x >> /data/n; n=$(wc -l < /data/n); echo try $n; test $n -ge 3";
    const text = podText("again", { app: script }, { restartPolicy: "OnFailure", ...VOLUMES }, { app: DATA });
    // Longer than it takes to look at a container that has ended, or there is nothing to hold back.
    const slowly = ["run", "--max-restart-period", "2s", "-f", "-"];
    const { code, stdout, stderr } = await node.pod(slowly, text);
    expect({ code, stdout }).toEqual({ code: 0, stdout: "[app] try 1\n[app] try 2\n[app] try 3\n" });
    expect(stderr).toMatch(
      /Warning BackOff again\/app: Back-off restarting failed container app in pod again_default\([-0-9a-f]+\)/,
    );
    expect((await node.pod(["logs", "again", "-p"])).stdout).toBe("try 2\n");
    expect((await node.pod(["logs", "again"])).stdout).toBe("try 3\n");
    const containerID = expect.stringMatching(new RegExp(`^${runtimeName}://[0-9a-f]{64}$`)) as string;
    expect((await statusOf("again")).containerStatuses[0]).toMatchObject({
      restartCount: 2,
      containerID,
      lastState: { terminated: { exitCode: 1, containerID } },
    });
    await node.pod(["rm", "again"]);
  }, 60_000);

  test("a failing liveness probe restarts its container, with the kubelet's words", async () => {
    // The first try takes away what every later one wants: nothing depends on how long anything takes.
    const shared = mkdtempSync(join(node.folder, "shared-"));
    writeFileSync(join(shared, "ok"), "");
    const probe = {
      livenessProbe: {
        exec: { command: ["sh", "-c", "cat /data/ok && rm /data/ok"] },
        ...{ periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2, terminationGracePeriodSeconds: 1 },
      },
    };
    const script = `test -e /data/first && echo second; touch /data/first; ${FOREVER}`;
    const pod = await runUntil(
      podText(
        "live",
        { app: script },
        { restartPolicy: "Always", volumes: [{ name: "data", hostPath: { path: shared } }] },
        { app: { ...DATA, ...probe } },
      ),
      "[app] second",
    );
    const lines = await pod.end();
    expect(events(lines).slice(0, 9)).toEqual(
      [
        "Pulled",
        "Created",
        "Started",
        "Unhealthy",
        "Unhealthy",
        "Killing",
        "Pulled",
        "Created",
        "Started",
      ].map((word) => `${word} live/app`),
    );
    expect(lines).toContain(
      "Warning Unhealthy live/app: Liveness probe failed: cat: can't open '/data/ok': No such file or directory",
    );
    expect(lines).toContain(
      "Normal Killing live/app: Container app failed liveness probe, will be restarted",
    );
    await node.pod(["rm", "live"]);
  }, 60_000);

  test("readiness by HTTP, TCP and gRPC: ready, not ready, and why", async () => {
    const web = { ports: [{ name: "web", containerPort: 80 }] };
    const every = { periodSeconds: 1 };
    const text = podText(
      "ready",
      {
        good: `httpd -p 80 -h /www; ${FOREVER}`,
        missing: FOREVER,
        open: FOREVER,
        closed: FOREVER,
        grpc: FOREVER,
      },
      {},
      {
        good: { ...web, readinessProbe: { httpGet: { port: "web", path: "/ok" }, ...every } },
        missing: { readinessProbe: { httpGet: { port: 80, path: "/none" }, ...every } },
        open: { readinessProbe: { tcpSocket: { port: 80 }, ...every } },
        closed: { readinessProbe: { tcpSocket: { port: 81 }, failureThreshold: 1, ...every } },
        grpc: { readinessProbe: { grpc: { port: 82 }, ...every } },
      },
    );
    const pod = await runUntil(
      text,
      /Readiness probe failed: timeout: failed to connect service "10\.89\.0\.\d+:82" within 1s/,
    );
    let ready: Record<string, boolean> = {};
    for (let tries = 0; tries < 50 && ready["good"] !== true; tries++) {
      const { containerStatuses } = await statusOf("ready");
      ready = Object.fromEntries(
        containerStatuses.map((each: { name: string; ready: boolean }) => [each.name, each.ready]),
      );
    }
    expect(ready).toEqual({ good: true, missing: false, open: true, closed: false, grpc: false });
    const lines = await pod.end();
    expect(lines).toContain(
      "Warning Unhealthy ready/missing: Readiness probe failed: HTTP probe failed with statuscode: 404",
    );
    expect(lines.join("\n")).toMatch(
      /Readiness probe failed: dial tcp 10\.89\.0\.\d+:81: connect: connection refused/,
    );
    await node.pod(["rm", "ready"]);
  }, 60_000);

  test("sidecars: started in order, after their startup probes, ended last and in reverse", async () => {
    const said = (word: string) =>
      `trap 'sleep 0.2; echo end ${word}; exit 0' TERM; sleep 0.3; touch /data/${word}; echo begin ${word}; while :; do sleep 0.05; done`;
    const sidecar = (name: string) =>
      box(name, said(name), {
        ...DATA,
        restartPolicy: "Always",
        startupProbe: {
          exec: { command: ["test", "-e", `/data/${name}`] },
          periodSeconds: 1,
          failureThreshold: 10,
        },
      });
    const text = podText(
      "cars",
      { app: "ls /data; echo begin app; sleep 0.2; echo end app" },
      {
        ...VOLUMES,
        initContainers: [sidecar("one"), box("init", "echo init sees $(ls /data)", DATA), sidecar("two")],
      },
      { app: DATA },
    );
    const { code, stdout } = await node.pod(["run", "--rm", "-f", "-"], text);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => line.replace(/^\[\w+\] /, ""));
    expect({ code, lines }).toEqual({
      code: 0,
      lines: [
        "begin one",
        "init sees one",
        "begin two",
        "one",
        "two",
        "begin app",
        "end app",
        "end two",
        "end one",
      ],
    });
  }, 60_000);

  test("exec, attach, port-forward and an ephemeral container", async () => {
    const script = `httpd -p 80 -h /www; echo up; while read -r line; do echo got $line; done; ${FOREVER}`;
    const ports = [{ name: "http", containerPort: 80 }];
    const pod = await runUntil(
      podText("io", { app: script }, { terminationGracePeriodSeconds: 1 }, { app: { stdin: true, ports } }),
      "[app] up",
    );
    const failed = await node.pod(["exec", "io", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    expect(failed).toEqual({ code: 7, stdout: "out\n", stderr: "err\n" });
    const piped = node.startPod(["exec", "-i", "io", "--", "head", "-n", "1"], "from stdin\n");
    expect(await new Response(piped.stdout).text()).toBe("from stdin\n");
    // Nobody ends its stdin, as on a terminal.
    expect(await node.startPod(["exec", "-i", "io", "--", "sh", "-c", "exit 6"]).exited).toBe(6);
    const attached = node.startPod(["attach", "-i", "io"], "a line\n");
    for await (const line of linesOf(attached.stdout)) if (line === "got a line") break;
    attached.kill();

    const forward = node.startPod(["port-forward", "io", ":http", ":81"]);
    const locals: number[] = [];
    const said = linesOf(forward.stdout);
    for (let count = 0; count < 2; count++)
      locals.push(Number(/:(\d+) ->/.exec((await said.next()).value ?? "")?.[1]));
    const [open, closed] = locals;
    // By a process: fetch connects on a thread that is not in the node's network.
    const get = (port: number | undefined) => run(["curl", "-s", `http://127.0.0.1:${port}/ok`]);
    const got = await Promise.all([get(open), get(open)]);
    expect(got.map(({ stdout }) => stdout)).toEqual(["well\n", "well\n"]);
    expect((await get(closed)).code).not.toBe(0);
    forward.kill("SIGINT");
    expect(await forward.exited).toBe(0);
    expect(await new Response(forward.stderr).text()).toContain("connection refused");

    const debug = await node.pod([
      "debug",
      "io",
      "--image",
      "box:1",
      "--target",
      "app",
      "-c",
      "look",
      "--",
      "sh",
      "-c",
      "ps | grep -c '[h]ttpd'",
    ]);
    expect({ code: debug.code, stdout: debug.stdout }).toEqual({ code: 0, stdout: "look\n" });
    const logs = await node.pod(["logs", "io", "-c", "look", "-f"]);
    expect(logs.stdout).toBe("2\n");
    expect((await statusOf("io")).ephemeralContainerStatuses).toMatchObject([
      { name: "look", state: { terminated: { exitCode: 0 } } },
    ]);
    const twice = await node.pod(["debug", "io", "--image", "box:1", "-c", "app"]);
    expect(twice.stderr).toContain(
      'spec.ephemeralContainers[1].name: duplicate value "app", used in spec.containers[0]',
    );
    const shell = node.startPod(
      ["debug", "io", "-i", "-q", "--image", "box:1", "-c", "sh"],
      "echo in; exit 5\n",
    );
    expect(await new Response(shell.stdout).text()).toBe("sh\nin\n");
    expect(await shell.exited).toBe(5);
    const bad = await node.pod(["debug", "io", "--image", "BOX", "-c", "bad"]);
    expect(bad.stderr).toContain("Warning Failed io/bad: Error: InvalidImageName\n");
    const { ephemeralContainerStatuses: added } = await statusOf("io");
    expect(added).toMatchObject([{ name: "look" }, { name: "sh", state: { terminated: { exitCode: 5 } } }]);
    const lines = await pod.end();
    expect(lines).toContain("[look] 2");
    await node.pod(["rm", "io"]);
  }, 60_000);

  test("apply leaves a pod running, and others alone; stop keeps its logs; a changed file replaces it", async () => {
    const other = {
      containers: [box("app", FOREVER)],
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 1,
    };
    const elsewhere = podText("left", {}, other, {}, { namespace: "elsewhere" });
    const others = `${elsewhere}\n---\n${podText("other", {}, other)}`;
    expect((await node.pod(["apply", "-q", "-f", "-"], others)).code).toBe(0);
    const stands = async () => [
      JSON.parse((await node.pod(["status", "left", "-n", "elsewhere", "-o", "json"])).stdout).status,
      await statusOf("other"),
    ];
    const stood = await stands();
    const text = (word: string) =>
      podText("left", { app: `echo ${word}; ${FOREVER}` }, { restartPolicy: "Always" });
    expect((await node.pod(["apply", "-q", "-f", "-"], text("first"))).stdout).toBe("pod/left started\n");
    const before = (await statusOf("left")).containerStatuses[0].containerID;
    expect((await node.pod(["apply", "-q", "-f", "-"], text("first"))).code).toBe(0);
    expect((await statusOf("left")).containerStatuses[0].containerID).toBe(before);
    expect((await node.pod(["apply", "-q", "-f", "-"], text("second"))).code).toBe(0);
    expect((await node.pod(["logs", "left"])).stdout).toBe("second\n");
    expect((await node.pod(["stop", "left"])).stdout).toBe("pod/left stopped\n");
    expect((await statusOf("left")).phase).toBe("Succeeded");
    expect((await node.pod(["logs", "left"])).stdout).toBe("second\n");
    expect((await node.pod(["ls", "-o", "yaml"])).stdout).toContain("kind: Pod");
    expect((await node.pod(["rm", "left"])).code).toBe(0);
    expect(await stands()).toEqual(stood);
    expect((await node.pod(["rm", "-f", "-"], others)).code).toBe(0);
  }, 60_000);

  test("stop and rm end several pods side by side, tell of them in order, and of each that fails", async () => {
    const shared = mkdtempSync(join(node.folder, "shared-"));
    const spec = { volumes: [{ name: "data", hostPath: { path: shared } }] };
    const text = (name: string, atTerm: string) =>
      podText(name, { app: `trap '${atTerm}; exit 0' TERM; while :; do sleep 0.05; done` }, spec, {
        app: DATA,
      });
    const waits = text("waits", "until test -e /data/asked; do sleep 0.05; done");
    const file = `${waits}\n---\n${text("asked", "touch /data/asked")}`;
    expect((await node.pod(["apply", "-q", "-f", "-"], file)).code).toBe(0);
    const stopped = await node.pod(["stop", "waits", "never", "asked", "nowhere"]);
    expect([stopped.code, stopped.stdout]).toEqual([1, "pod/waits stopped\npod/asked stopped\n"]);
    expect(stopped.stderr).toMatch(/^bunkerd: pod "never" .*\nbunkerd: pod "nowhere" .*\n$/);
    // One after the other the first would have had to be killed.
    const exitCodes = async (name: string) =>
      (await statusOf(name)).containerStatuses[0].state.terminated.exitCode;
    expect([await exitCodes("waits"), await exitCodes("asked")]).toEqual([0, 0]);
    const removed = await node.pod(["rm", "waits", "asked", "waits"]);
    expect([removed.code, removed.stdout]).toEqual([1, "pod/waits removed\npod/asked removed\n"]);
    expect(removed.stderr).toMatch(/^bunkerd: pod "waits" in namespace "default".*\n$/);
  }, 60_000);

  test("a file's pods, or all of a namespace, are removed; apply gives up in time; a container's own rules for restarts", async () => {
    const missing = (name: string) =>
      podText(
        name,
        { app: "true" },
        {},
        { app: { imagePullPolicy: "Never", image: "none:1" } },
        { namespace: "team" },
      );
    const file = `${missing("one")}\n---\n${missing("two")}`;
    const applied = await node.pod(["apply", "-q", "--timeout", "300ms", "-f", "-"], file);
    expect([applied.code, applied.stderr.trim().split("\n")]).toEqual([
      1,
      ["one", "two"].map(
        (name) =>
          expect.stringMatching(
            new RegExp(
              `^bunkerd: pod "${name}" has not started within 300ms: (?:its sandbox has not been made|app: ErrImageNeverPull: .*)\\. ${LEFT}$`,
            ),
          ) as string,
      ),
    ]);
    const hook = { lifecycle: { postStart: { sleep: { seconds: 100 } } } };
    const hooked = podText("hooked", { app: FOREVER }, {}, { app: hook }, { namespace: "team" });
    const { code, stderr } = await node.pod(["apply", "--timeout", "3s", "-f", "-"], hooked);
    expect([code, stderr.trim().split("\n").at(-1)]).toEqual([
      1,
      `bunkerd: pod "hooked" has not started within 3s: the post-start hook of container "app" has not ended. ${LEFT}`,
    ]);
    expect(stderr).not.toContain("PostStartHook failed");
    expect((await node.pod(["rm", "-f", "-"], hooked)).code).toBe(0);
    expect((await node.pod(["rm", "-f", "-"], missing("two"))).stdout).toBe("pod/two removed\n");
    expect((await node.pod(["rm"])).stderr).toBe("bunkerd: which pods? Give names, a file by -f, or --all\n");
    expect((await node.pod(["rm", "-n", "team", "--all"])).stdout).toBe("pod/one removed\n");

    const script = "echo x >> /data/n; n=$(wc -l < /data/n); echo try $n; test $n -ge 2 || exit 42; exit 3";
    const rules = {
      restartPolicy: "Never",
      restartPolicyRules: [{ action: "Restart", exitCodes: { operator: "In", values: [42] } }],
    };
    const ran = await node.pod(
      [...RUN.slice(0, -2), "--rm", "-f", "-"],
      podText("ruled", { app: script }, VOLUMES, { app: { ...DATA, ...rules } }),
    );
    expect([ran.code, ran.stdout]).toEqual([3, "[app] try 1\n[app] try 2\n"]);
  }, 60_000);

  test("restarts leave one dead instance; a volume that grows beyond its limit ends its pod", async () => {
    const script =
      "echo x >> /data/n; n=$(wc -l < /data/n); echo try $n; test $n -lt 5 && exit 1; dd if=/dev/zero of=/data/big bs=1M count=2 2>/dev/null; sleep 100";
    const volumes = { volumes: [{ name: "data", emptyDir: { sizeLimit: "1Mi" } }] };
    const { code, stderr } = await node.pod(
      RUN,
      podText("grows", { app: script }, { restartPolicy: "OnFailure", ...volumes }, { app: DATA }),
    );
    expect(code).toBe(137);
    expect(stderr).toContain(
      'Warning Evicted grows: Usage of EmptyDir volume "data" exceeds the limit "1Mi".',
    );
    const listed = JSON.parse((await node.pod(["status", "grows", "-o", "json"])).stdout);
    expect(listed.status).toMatchObject({
      phase: "Failed",
      reason: "Evicted",
      containerStatuses: [{ restartCount: 4 }],
    });
    const logs = join(node.logsRoot, `default_grows_${listed.metadata.uid}`, "app");
    expect(readdirSync(logs).sort()).toEqual(["3.log", "4.log"]);
    expect(readdirSync(join(node.podsRoot, listed.metadata.uid, "containers/app"))).toHaveLength(2);
    await node.pod(["rm", "grows"]);
  }, 60_000);

  test("the pod's cgroup has the sum of its containers' limits", async () => {
    const uid = crypto.randomUUID();
    const sized = { resources: { limits: { memory: "32Mi", cpu: "250m" } } };
    const text = podText(
      "sums",
      { app: `echo up; ${FOREVER}`, other: FOREVER },
      {},
      { app: sized, other: sized },
      { uid },
    );
    const pod = await runUntil(text, "Started sums/other");
    const v1 = existsSync("/sys/fs/cgroup/memory");
    const read = (file: string): string => readFileSync(join("/sys/fs/cgroup", file), "utf8").trim();
    const path = `kubepods/pod${uid}`;
    const numbers = v1
      ? [
          read(`memory/${path}/memory.limit_in_bytes`),
          read(`cpu/${path}/cpu.cfs_quota_us`),
          read(`cpu/${path}/cpu.shares`),
        ]
      : [read(`${path}/memory.max`), read(`${path}/cpu.max`).split(" ")[0], "512"];
    expect(numbers).toEqual([String(64 << 20), "50000", "512"]);
    await pod.end();
    await node.pod(["rm", "sums"]);
    expect(existsSync(join("/sys/fs/cgroup", v1 ? "memory" : "", path))).toBe(false);
  }, 60_000);

  test.skipIf(kind !== "cri-o")(
    "a runtime without events is looked at each second, a pod that fails is tried again in its own time",
    async () => {
      const pod = await runUntil(
        podText("fails", {}, { containers: [box("app", "", { command: ["/none"] })] }),
        "Failed fails/app",
      );
      const since = performance.now();
      await until("some looks", () => performance.now() - since > 3500);
      expect(events(await pod.end())).toEqual(["Pulled fails/app", "Failed fails/app"]);
      await node.pod(["rm", "fails"]);
    },
    60_000,
  );

  test("a hook that hangs past its time: the pod ends all the same", async () => {
    const probe = { exec: { command: ["test", "-e", "/tmp/ok"] }, periodSeconds: 1, failureThreshold: 1 };
    const hangs = {
      lifecycle: { preStop: { exec: { command: ["sh", "-c", "rm /tmp/ok; sleep 100"] } } },
      ...{ livenessProbe: probe, readinessProbe: probe },
    };
    const grace = { terminationGracePeriodSeconds: 2 };
    const pod = await runUntil(
      podText("hangs", { app: `touch /tmp/ok; echo up; ${FOREVER}` }, grace, { app: hangs }),
      "[app] up",
    );
    await until("it is ready", async () => (await statusOf("hangs")).containerStatuses[0].ready);
    pod.child.kill("SIGINT");
    await until("it is not ready", () => pod.lines.some((line) => line.includes("Readiness probe failed")));
    expect((await statusOf("hangs")).containerStatuses).toMatchObject([{ ready: false }]);
    await pod.child.exited;
    const told = (await pod.end()).join("\n");
    expect(told).toContain("Warning FailedPreStopHook hangs/app: PreStopHook not completed in grace period");
    // A pod that ends is probed for its readiness alone.
    expect(told.slice(told.indexOf("Killing"))).toContain("Readiness probe failed");
    expect(told.slice(told.indexOf("Killing"))).not.toContain("Liveness");
    expect((await node.pod(["rm", "hangs"])).code).toBe(0);
    const file = join(node.folder, "hook.yaml");
    await Bun.write(
      file,
      podText(
        "starts",
        { app: FOREVER },
        { activeDeadlineSeconds: 2 },
        { app: { lifecycle: { postStart: { sleep: { seconds: 100 } } } } },
      ),
    );
    const { code, stderr } = await node.pod(["run", "--rm", "-f", file]);
    expect(code).toBe(1);
    expect(stderr).toContain("DeadlineExceeded");
  }, 60_000);
});
