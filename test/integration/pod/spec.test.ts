/** What a pod's spec says, seen from inside its containers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { podNature } from "../../support/pod-natures.ts";
import { box, podText, type Scripts } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, runUntilSaid, startPodNode } from "../../support/pods.ts";
import { linesOf } from "../../support/processes.ts";

describe.each(podDaemons({ both: true }))("%s", (kind) => {
  const nature = podNature(kind);
  let node: PodNode;
  beforeAll(async () => {
    node = await startPodNode(kind);
  }, 60_000);
  afterAll(() => node[Symbol.asyncDispose]());

  let count = 0;
  /** What the containers print, by container, with the exit code. */
  async function run(
    scripts: Scripts,
    spec: object = {},
    more: Readonly<Record<string, object>> = {},
    others: readonly object[] = [],
    metadata: object = {},
  ): Promise<{ code: number; stderr: string; lines: Record<string, string[]> }> {
    const text = [
      podText(`seen-${++count}`, scripts, spec, more, metadata),
      ...others.map((each) => JSON.stringify(each)),
    ].join("\n---\n");
    const { code, stdout, stderr } = await node.pod(["run", "--rm", "-f", "-"], text);
    const lines: Record<string, string[]> = {};
    for (const line of stdout.split("\n").filter((each) => each !== "")) {
      const [, name = "", rest = ""] = /^\[([^\]]+)\] (.*)$/.exec(line) ?? [];
      lines[name] = [...(lines[name] ?? []), rest];
    }
    return { code, stderr, lines };
  }

  const config = {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "conf" },
    data: { "a.txt": "A", b: "B" },
  };
  const secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "hidden" },
    data: { key: Buffer.from("S").toString("base64") },
  };

  test("volumes of every kind", async () => {
    const host = join(node.folder, "host");
    mkdirSync(host);
    writeFileSync(join(host, "file"), "from the host\n");
    const cpu = { containerName: "app", resource: "limits.cpu", divisor: "1m" };
    const volumes = [
      { name: "disk", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory", sizeLimit: "1Mi" } },
      { name: "host", hostPath: { path: host, type: "Directory" } },
      { name: "made", hostPath: { path: join(host, "made"), type: "DirectoryOrCreate" } },
      { name: "conf", configMap: { name: "conf", defaultMode: 0o440 } },
      { name: "picked", configMap: { name: "conf", items: [{ key: "b", path: "deep/b", mode: 0o400 }] } },
      { name: "none", configMap: { name: "gone", optional: true } },
      { name: "hidden", secret: { secretName: "hidden" } },
      {
        name: "down",
        downwardAPI: { items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }] },
      },
      {
        name: "all",
        projected: {
          defaultMode: 0o400,
          sources: [
            { configMap: { name: "conf", items: [{ key: "b", path: "in/b", mode: 0o444 }] } },
            { secret: { name: "hidden" } },
            { secret: { name: "gone", optional: true } },
            { downwardAPI: { items: [{ path: "cpu", resourceFieldRef: cpu }] } },
          ],
        },
      },
      { name: "image", image: { reference: "box:1", pullPolicy: "Never" } },
    ];
    const script = [
      "echo $(stat -c %a /v/disk) $(stat -f -c %T /v/memory) $(df -k /v/memory | tail -1 | awk '{print $2}')",
      "cat /v/host/file; test -d /v/made && echo made",
      "echo $(cat /v/conf/a.txt /v/conf/b) $(stat -L -c %a /v/conf/b) $(readlink /v/conf/b)",
      "echo $(cat /v/picked/deep/b) $(stat -L -c %a /v/picked/deep/b) $(ls /v/none | wc -l)",
      "echo $(cat /v/hidden/key) $(stat -f -c %T /v/hidden)",
      "cat /v/down/labels; echo; cd /v/all; echo $(ls) $(cat in/b key cpu) $(stat -L -c %a in/b key cpu); cd /",
      "cat /v/image/www/ok; touch /v/image/x 2>/dev/null || echo read-only",
      "touch /v/conf/x 2>/dev/null || echo sealed",
    ].join("\n");
    const mounts = volumes.map(({ name }) => ({
      name,
      mountPath: `/v/${name}`,
      ...(name === "conf" ? { readOnly: true } : {}),
    }));
    const resources = { limits: { cpu: "1500m" } };
    const { code, lines, stderr } = await run(
      { app: script },
      { volumes },
      { app: { volumeMounts: mounts, resources } },
      [config, secret],
      {
        labels: { app: "x" },
      },
    );
    expect({ code, stderr: code === 0 ? "" : stderr, lines: lines["app"] }).toEqual({
      code: 0,
      stderr: "",
      lines: [
        "777 tmpfs 1024",
        "from the host",
        "made",
        "AB 440 ..data/b",
        "B 400 0",
        "S tmpfs",
        'app="x"',
        "cpu in key BS1500 444 400 400",
        "well",
        "read-only",
        "sealed",
      ],
    });
  }, 60_000);

  test("host paths of each type, read-only with what is mounted below; subdomain, a message of another path", async () => {
    const file = join(node.folder, "a-file");
    writeFileSync(file, "in the file\n");
    const volumes = [
      { name: "file", hostPath: { path: file, type: "File" } },
      { name: "fresh", hostPath: { path: join(node.folder, "fresh"), type: "FileOrCreate" } },
      { name: "socket", hostPath: { path: node.daemon.socket, type: "Socket" } },
      { name: "char", hostPath: { path: "/dev/null", type: "CharDevice" } },
      { name: "any", hostPath: { path: file, type: "" } },
      { name: "dev", hostPath: { path: "/dev" } },
    ];
    const volumeMounts = [
      ...volumes.map(({ name }) => ({ name, mountPath: `/v/${name}`, readOnly: name === "dev" })),
      { name: "dev", mountPath: "/v/whole", readOnly: true, recursiveReadOnly: "Enabled" },
      { name: "dev", mountPath: "/v/maybe", readOnly: true, recursiveReadOnly: "IfPossible" },
    ];
    const script = [
      "cat /v/file /v/any; test -f /v/fresh && test -S /v/socket && test -c /v/char && echo there",
      "for each in dev whole maybe; do touch /v/$each/shm 2>/dev/null && echo open || echo sealed; done",
      "awk '/team/ { print $2, $3 }' /etc/hosts; echo told > /message",
    ].join("\n");
    const text = podText(
      "types",
      { app: script },
      { volumes, hostname: "web", subdomain: "team" },
      { app: { volumeMounts, terminationMessagePath: "/message" } },
    );
    const { code, stdout, stderr } = await node.pod(["run", "-q", "-f", "-"], text);
    const lines = ["in the file", "in the file", "there", "open", "sealed", "sealed"];
    expect({ code, stdout, stderr }).toEqual({
      ...{ code: 0, stderr: "" },
      stdout: [...lines, "web.team.default.svc. web"].map((line) => `[app] ${line}\n`).join(""),
    });
    const { status } = JSON.parse((await node.pod(["status", "types", "-o", "json"])).stdout);
    expect(status.containerStatuses[0].state.terminated.message).toBe("told\n");
    await node.pod(["rm", "types"]);

    const wrong = { file: "/dev", socket: file, char: file, block: "/dev/null" };
    const types: Record<string, string> = {
      ...{ file: "File", socket: "Socket", char: "CharDevice", block: "BlockDevice" },
    };
    const pods = Object.entries(wrong).map(([name, path]) =>
      podText(name, { app: "true" }, { volumes: [{ name: "it", hostPath: { path, type: types[name] } }] }),
    );
    const words = Object.entries(wrong).map(
      ([name, path]) =>
        `${name}: MountVolume.SetUp failed for volume "it" : hostPath type check failed: ${path} is not a `,
    );
    const { stdout: ran, stderr: told } = await runUntilSaid(node, pods.join("\n---\n"), words);
    for (const word of words) expect(told).toContain(word);
    expect(ran).toBe("");
  }, 60_000);

  test("subPath, subPathExpr, and a link that leads out", async () => {
    const volumes = [{ name: "v", emptyDir: {} }];
    const init = [
      box("make", "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /etc /v/out", {
        volumeMounts: [{ name: "v", mountPath: "/v" }],
      }),
    ];
    const mount = (more: object) => ({ volumeMounts: [{ name: "v", mountPath: "/m", ...more }] });
    const good = await run(
      { file: "cat /m", folder: "cat /m/f", fresh: "ls -d /m" },
      { volumes, initContainers: init },
      {
        file: mount({ subPath: "a/b/f" }),
        folder: { ...mount({ subPathExpr: "a/$(SUB)" }), env: [{ name: "SUB", value: "b" }] },
        fresh: mount({ subPath: "new/er" }),
      },
    );
    expect({ code: good.code, lines: good.lines }).toEqual({
      code: 0,
      lines: { file: ["deep"], folder: ["deep"], fresh: ["/m"] },
    });
    const text = podText(
      "bad",
      { app: "ls /m" },
      { volumes, initContainers: init },
      { app: mount({ subPath: "out" }) },
    );
    const word = 'Warning Failed bad/app: Error: subPath "out" leads out of the volume';
    const bad = await runUntilSaid(node, text, [word]);
    expect(bad.stderr).toContain(word);
    expect(bad.stderr).not.toContain("Started bad/app");
  }, 60_000);

  test("users, groups, capabilities, privileges, seccomp, /proc, read-only root", async () => {
    using profile = seccompProfile({
      defaultAction: "SCMP_ACT_ALLOW",
      syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }],
    });
    const localhostProfile = profile.name;
    const shown =
      "echo $(id -u):$(id -g) $(id -G); grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; touch /x 2>/dev/null || echo sealed";
    const { lines, code, stderr } = await run(
      {
        app: shown,
        root: shown,
        free: "ls /dev | wc -l | awk '{print ($1 > 20)}'",
        group: "echo hi > /v/f; stat -c %g:%a /v /v/f",
        denied: "mkdir /tmp/x 2>/dev/null || echo denied",
      },
      {
        securityContext: {
          runAsUser: 1000,
          runAsGroup: 2000,
          fsGroup: 3000,
          supplementalGroups: [4000],
          seccompProfile: { type: "RuntimeDefault" },
        },
        volumes: [{ name: "v", emptyDir: {} }],
      },
      {
        app: {
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
          },
        },
        root: {
          securityContext: {
            runAsUser: 0,
            capabilities: { drop: ["ALL"], add: ["NET_ADMIN"] },
            seccompProfile: { type: "Unconfined" },
          },
        },
        free: { securityContext: { privileged: true, runAsUser: 0 } },
        group: { volumeMounts: [{ name: "v", mountPath: "/v" }] },
        denied: { securityContext: { seccompProfile: { type: "Localhost", localhostProfile } } },
      },
    );
    const strict = { runAsUser: 1000, supplementalGroups: [4000], supplementalGroupsPolicy: "Strict" };
    const alone = await run({ app: "id -G" }, { securityContext: strict });
    expect(alone.lines, alone.stderr).toEqual({ app: ["1000 4000"] });
    expect({ code, stderr: code === 0 ? "" : stderr, lines }).toEqual({
      code: 0,
      stderr: "",
      lines: {
        app: [
          "1000:2000 2000 3000 4000 5000",
          "CapEff:0000000000000000",
          "NoNewPrivs:1",
          "Seccomp:2",
          "sealed",
        ],
        root: [
          ...["0:2000 2000 3000 4000", "CapEff:0000000000001000", "NoNewPrivs:0", "Seccomp:0"],
          ...(nature.rootOwnsSlash ? [] : ["sealed"]),
        ],
        free: ["1"],
        group: ["3000:2777", "3000:644"],
        denied: ["denied"],
      },
    });
  }, 60_000);

  test("runAsNonRoot", async () => {
    const spec = { securityContext: { runAsNonRoot: true } };
    const pods = ["box", "userbox", "named"].map((image) =>
      podText(image, { app: "id -u" }, spec, { app: { image: `${image}:1` } }),
    );
    const words = [
      "box/app: Error: container has runAsNonRoot and image will run as root (pod:",
      "image has non-numeric user (web), cannot verify user is non-root",
      "[userbox/app] 1000\n",
    ];
    const { stdout, stderr } = await runUntilSaid(node, pods.join("\n---\n"), words);
    for (const word of words) expect(stderr + stdout).toContain(word);
    expect(stdout).toBe("[userbox/app] 1000\n");
  }, 60_000);

  test("host's namespaces, shared processes, host name, aliases, DNS, sysctls", async () => {
    const own = await run(
      {
        app: "hostname; tail -1 /etc/hosts; cat /etc/resolv.conf; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; sleep 0.5",
        other: "sleep 0.2; ps | grep -c '[s]leep'",
      },
      {
        hostname: "called",
        hostAliases: [{ ip: "192.0.2.1", hostnames: ["alias", "other"] }],
        dnsPolicy: "None",
        dnsConfig: {
          nameservers: ["192.0.2.53"],
          searches: ["x.test"],
          options: [{ name: "ndots", value: "3" }],
        },
        shareProcessNamespace: true,
        securityContext: { sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "81" }] },
      },
    );
    expect(own.lines["app"]).toEqual([
      "called",
      "192.0.2.1\talias\tother",
      "search x.test",
      "nameserver 192.0.2.53",
      "options ndots:3",
      "81",
    ]);
    expect(Number(own.lines["other"]?.[0])).toBeGreaterThan(1);
    const host = await run(
      { app: "hostname; ip -o link | grep -c pods0; readlink /proc/self/ns/ipc; head -1 /etc/hosts" },
      { hostNetwork: true, hostPID: true, hostIPC: true },
    );
    const ipc = `ipc:[${/\d+/.exec(readlinkSync("/proc/self/ns/ipc"))?.[0]}]`;
    expect(host.lines["app"]).toEqual([
      hostname(),
      "1",
      ipc,
      "# Kubernetes-managed hosts file (host network).",
    ]);
  }, 60_000);

  test("DNS policies: the machine's servers with the pod's own added, whatever its network; None has its own only", async () => {
    const machine = readFileSync("/etc/resolv.conf", "utf8");
    const words = (text: string, key: string): string[] =>
      text.split("\n").flatMap((line) => (line.startsWith(`${key} `) ? line.split(/\s+/).slice(1) : []));
    const own = {
      nameservers: ["192.0.2.53"],
      searches: ["own.test"],
      options: [{ name: "ndots", value: "4" }, { name: "rotate" }],
    };
    const { nameservers: _none, ...added } = own;
    const pods = {
      first: { dnsPolicy: "ClusterFirst", dnsConfig: added },
      unsaid: { dnsConfig: added, hostNetwork: true },
      both: { dnsPolicy: "ClusterFirstWithHostNet", dnsConfig: added, hostNetwork: true },
      machine: { dnsPolicy: "Default", dnsConfig: added },
      alone: { dnsPolicy: "None", dnsConfig: own },
      host: { dnsPolicy: "None", dnsConfig: own, hostNetwork: true },
    };
    const text = Object.entries(pods).map(([name, spec]) =>
      podText(name, { app: "cat /etc/resolv.conf" }, spec),
    );
    const { code, stdout } = await node.pod(["run", "--rm", "-f", "-"], text.join("\n---\n"));
    expect(code).toBe(0);
    const servers = words(machine, "nameserver").slice(0, 3);
    const searches = words(machine, "search");
    const options = words(machine, "options").filter((each) => !/^(?:ndots|rotate)/.test(each));
    for (const [name, spec] of Object.entries(pods)) {
      const lines = stdout
        .split("\n")
        .filter((line) => line.startsWith(`[${name}/app] `))
        .map((line) => line.replace(/^\S+ /, ""))
        .join("\n");
      const seen = ["nameserver", "search", "options"].map((key) => words(lines, key));
      const wanted =
        "dnsPolicy" in spec && spec.dnsPolicy === "None"
          ? [["192.0.2.53"], ["own.test"], ["ndots:4", "rotate"]]
          : [servers, [...searches, "own.test"], [...options, "ndots:4", "rotate"]];
      const sorted = (all: string[][]): string[][] => [...all.slice(0, 2), (all[2] ?? []).sort()];
      expect({ name, seen: sorted(seen) }).toEqual({ name, seen: sorted(wanted) });
    }
  }, 60_000);

  test("stopSignal behind a preStop hook by HTTP; stdin that is there once, and stdin that stays", async () => {
    const traps = "trap 'echo usr1; exit' USR1; trap 'echo term; exit' TERM";
    const stopped = await runUntilSaid(
      node,
      podText(
        "signalled",
        {
          app: `${traps}; httpd -f -vv -p 80 -h /www 2>&1 & until wget -q -O - 127.0.0.1/ok >/dev/null; do sleep 0.05; done; echo ready; while :; do sleep 0.1; done`,
        },
        { os: { name: "linux" } },
        { app: { lifecycle: { preStop: { httpGet: { port: 80, path: "/ok" } }, stopSignal: "SIGUSR1" } } },
      ),
      ["[app] ready", "Normal Started signalled"],
    );
    const signal = nature.stopSignal ? "usr1" : "term";
    expect(stopped.stdout).toMatch(
      new RegExp(
        `\\[app\\] ready\\n\\[app\\] .*url:/ok\\n(?:\\[app\\] .*response:200\\n)?\\[app\\] ${signal}\\n$`,
      ),
    );

    const running = node.startPod(
      ["run", "--rm", "-q", "-f", "-"],
      podText(
        "asked",
        { once: "echo up; cat; echo over", stays: "echo up; for n in 1 2; do read -r w; echo got $w; done" },
        {},
        { once: { stdin: true, stdinOnce: true }, stays: { stdin: true } },
      ),
    );
    const said: string[] = [];
    const lines = linesOf(running.stdout);
    const until = async (wanted: string): Promise<void> => {
      while (!said.includes(wanted)) {
        const { value, done } = await lines.next();
        if (done === true) throw new Error(`never ${wanted}: ${said.join("\n")}`);
        said.push(value);
      }
    };
    const tell = async (container: string, word: string, answer: string): Promise<void> => {
      const attached = node.startPod(["attach", "-i", "asked", "-c", container], `${word}\n`);
      await until(`[${container}] ${answer}`);
      attached.kill();
      await attached.exited;
    };
    await until("[once] up");
    await until("[stays] up");
    await tell("stays", "a", "got a");
    await tell("once", "x", "x");
    await until("[once] over");
    await tell("stays", "b", "got b");
    expect(await running.exited).toBe(0);
  }, 60_000);

  test("CPU, memory, QoS: the cgroup's numbers and the OOM score", async () => {
    const v2 =
      readFileSync("/proc/filesystems", "utf8").includes("cgroup2") &&
      readFileSync("/proc/self/cgroup", "utf8").startsWith("0::");
    const script = v2
      ? "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; cat /proc/self/oom_score_adj"
      : "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares; cat /proc/self/oom_score_adj; grep -o 'kubepods/burstable/pod' /proc/self/cgroup | head -1";
    const { lines, stderr } = await run(
      { app: script },
      {},
      {
        app: {
          resources: { limits: { memory: "64Mi", cpu: "500m" }, requests: { cpu: "100m", memory: "1Mi" } },
        },
      },
    );
    expect({ lines: lines["app"], stderr: lines["app"] === undefined ? stderr : "" }).toEqual({
      lines: v2
        ? ["67108864", "50000 100000", "999"]
        : [
            "67108864",
            "50000",
            "102",
            "999",
            ...(lines["app"]?.length === 5 ? ["kubepods/burstable/pod"] : []),
          ],
      stderr: "",
    });
  }, 60_000);

  test("command, args, environment, working folder, tty, termination messages", async () => {
    const env = [
      { name: "A", value: "1" },
      { name: "B", value: "$(A)2$$(A)$(NO)" },
      { name: "POD", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
      { name: "LIMIT", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } } },
      { name: "KEY", valueFrom: { secretKeyRef: { name: "hidden", key: "key" } } },
    ];
    const text = [
      podText(
        "said",
        {
          app: "echo $A $B $POD $NODE $LIMIT $KEY $C_b $FROM_IMAGE; pwd; tty; echo done > /dev/termination-log; exit 1",
          fall: "",
        },
        {},
        {
          app: {
            env,
            envFrom: [{ prefix: "C_", configMapRef: { name: "conf" } }],
            workingDir: "/www",
            tty: true,
            resources: { limits: { memory: "64Mi" } },
          },
          fall: {
            command: ["sh", "-c"],
            args: ["echo last $(WORD); exit 2"],
            env: [{ name: "WORD", value: "words" }],
            terminationMessagePolicy: "FallbackToLogsOnError",
          },
        },
      ),
      JSON.stringify(config),
      JSON.stringify(secret),
    ].join("\n---\n");
    const ran = await node.pod(["run", "-f", "-"], text);
    expect(
      ran.stdout
        .replaceAll("\r", "")
        .split("\n")
        .filter((line) => line.startsWith("[app]")),
    ).toEqual([`[app] 1 12$(A)$(NO) said ${hostname()} 64 S B yes`, "[app] /www", "[app] /dev/pts/0"]);
    const status = JSON.parse((await node.pod(["status", "said", "-o", "json"])).stdout).status;
    const messages = status.containerStatuses.map(
      (each: { state: { terminated: { message: string } } }) => each.state.terminated.message,
    );
    expect(messages).toEqual(["done\n", "last words\n"]);
    await node.pod(["rm", "said"]);
  }, 60_000);

  test("the pod's address stands in its first container's environment and hosts file", async () => {
    const env = [{ name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } }];
    const script = 'echo $IP; grep -c "^$IP.$(hostname)" /etc/hosts';
    const ran = await node.pod(
      ["run", "--rm", "-f", "-"],
      podText("at", { app: script }, {}, { app: { env } }),
    );
    expect(ran.stdout).toMatch(/^\[app\] 10\.89\.0\.\d+\n\[app\] 1\n$/);
  }, 60_000);

  test("what is missing is told, with the container's name; other pods go on", async () => {
    const lacking: Readonly<Record<string, readonly [object, object, string]>> = {
      map: [
        {},
        { env: [{ name: "A", valueFrom: { configMapKeyRef: { name: "no", key: "k" } } }] },
        'Warning Failed map/app: Error: configmap "no" not found',
      ],
      secret: [
        { volumes: [{ name: "v", secret: { secretName: "no" } }] },
        {},
        'Warning FailedMount secret: MountVolume.SetUp failed for volume "v" : secret "no" not found',
      ],
      host: [
        { volumes: [{ name: "v", hostPath: { path: "/no/such", type: "Directory" } }] },
        {},
        "hostPath type check failed: /no/such is not a directory",
      ],
      never: [
        {},
        { imagePullPolicy: "Never", image: "nothere:1" },
        'Warning ErrImageNeverPull never/app: Container image "nothere:1" is not present with pull policy of Never',
      ],
      pull: [
        {},
        { image: "127.0.0.1:9/no:1" },
        'Warning Failed pull/app: Failed to pull image "127.0.0.1:9/no:1": ',
      ],
      name: [{}, { image: "No//name" }, "invalid reference format"],
      handler: [
        { runtimeClassName: "nope" },
        {},
        `Warning FailedCreatePodSandBox handler: Failed to create pod sandbox: rpc error: code = Unknown desc = ${nature.noHandler}`,
      ],
      // Debian 12's runc shifts the ids of no mount: `users.test.ts` has another one.
      users: [
        { hostUsers: false },
        {},
        "Warning FailedCreatePodSandBox users: Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces",
      ],
      program: [
        {},
        { command: ["/no/such/program"] },
        `Warning Failed program/app: Error: ${nature.noProgram}`,
      ],
    };
    const pods = Object.entries(lacking).map(([name, [spec, more]]) =>
      podText(name, { app: "true" }, spec, { app: more }),
    );
    const text = [...pods, podText("good", { app: "echo untouched" })].join("\n---\n");
    const messages = Object.values(lacking).map(([, , message]) => message);
    messages.push(`Warning Failed pull/app: Error: ${nature.noRegistry}\n`);
    const { stderr, stdout } = await runUntilSaid(node, text, [...messages, "[good/app] untouched"]);
    for (const message of messages) expect(stderr).toContain(message);
    // Whatever a runtime says, an event is a line.
    for (const line of stderr.trimEnd().split("\n")) expect(line).toMatch(/^(?:Normal|Warning|bunkerd:) /);
    expect(stdout).toBe("[good/app] untouched\n");
  }, 60_000);
});

/** A profile where kubelets look for them, by its name there. */
function seccompProfile(profile: object): Disposable & { readonly name: string } {
  const root = "/var/lib/kubelet/seccomp";
  const made = mkdirSync(root, { recursive: true });
  const name = `bunkerd-test-${process.pid}.json`;
  writeFileSync(join(root, name), JSON.stringify(profile));
  return {
    name,
    [Symbol.dispose]() {
      rmSync(join(root, name));
      if (made !== undefined) rmSync(made, { recursive: true });
    },
  };
}
