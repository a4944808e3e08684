/** What pods have of the machine around them: its ports, registries that ask who is there, other runtimes, shared mounts, servers with TLS. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { until } from "../../support/containers.ts";
import { REPOSITORY } from "../../support/daemons.ts";
import { podNature } from "../../support/pod-natures.ts";
import { podText } from "../../support/pod-text.ts";
import { boxLayer, type PodNode, podDaemons, runUntilSaid, startPodNode } from "../../support/pods.ts";
import { freePort } from "../../support/ports.ts";
import { linesOf, output, removeFolder, run, temporaryFolder } from "../../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../../support/registry.ts";
import { buildImage } from "../../support/tar.ts";

const FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const NODE = "10.89.0.1";
const PASSWORD = "only for pods";

describe.each(podDaemons({ both: true }))("%s", (kind) => {
  const { runtimeName, sandboxIsProcess, cgroupPrefix, noHandler } = podNature(kind);
  let node: PodNode;
  let folder: string;
  let registry: Registry;

  /** The second runtime is the first by another name, which keeps a list of its calls. */
  const handlers = (): Record<string, string> => {
    const program = join(folder, "other-runc");
    writeFileSync(program, `#!/bin/sh\necho "$@" >> ${folder}/calls\nexec runc "$@"\n`, { mode: 0o755 });
    return { other: program };
  };

  /** Filled while whoever comes may write; asks for a name and a password from then on. */
  const startPrivateRegistry = async (): Promise<() => Promise<Registry>> => {
    const images = join(folder, "registry");
    const open = await startRegistry(images, await freePort());
    const pack = (bytes: Buffer) => ({
      blob: gzipSync(bytes, { level: 1 }),
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    });
    await pushImage(
      open,
      "private",
      "1",
      buildImage("private", [await boxLayer()], pack, { Env: ["PATH=/bin"] }),
    );
    await open.stop();
    const path = join(folder, "htpasswd");
    writeFileSync(path, `pods:${await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 4 })}\n`);
    return () => startRegistry(images, 5000, { auth: { htpasswd: { realm: "pods", path } } });
  };

  beforeAll(async () => {
    folder = temporaryFolder();
    const start = await startPrivateRegistry();
    await output([
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...[
        "-subj",
        "/CN=pod",
        "-days",
        "2",
        "-keyout",
        join(folder, "key.pem"),
        "-out",
        join(folder, "cert.pem"),
      ],
    ]);
    // Mounts of the daemon's namespace are shared, as they are on a machine with systemd.
    const prefix = ["unshare", "--mount", "--propagation", "shared"];
    node = await startPodNode(kind, undefined, { portMap: true, prefix, handlers: handlers() });
    registry = await start();
  }, 60_000);
  afterAll(async () => {
    await registry.stop();
    await node[Symbol.asyncDispose]();
    removeFolder(folder);
  });

  /** Runs a pod in the background while `act` does, from a line of its output on; removes it. */
  async function whileRunning(
    name: string,
    text: string,
    line: string,
    act: () => Promise<void>,
  ): Promise<void> {
    const child = node.startPod(["run", "-q", "-f", "-"], text);
    const said: string[] = [];
    const found = Promise.withResolvers<void>();
    const read = async (): Promise<void> => {
      for await (const each of linesOf(child.stdout)) {
        said.push(each);
        if (each === line) found.resolve();
      }
      found.reject(new Error(`never ${line}: ${said.join("\n")}`));
    };
    const reading = read();
    try {
      await found.promise;
      await act();
    } finally {
      child.kill("SIGINT");
      await child.exited;
      await reading;
      await node.pod(["rm", name]);
    }
  }

  test("a port of the host leads to the pod as long as it is there", async () => {
    const ports = [
      { containerPort: 80, hostPort: 18_080 },
      { containerPort: 81, hostPort: 18_081, hostIP: "127.0.0.9" },
    ];
    const text = podText(
      "ported",
      { app: `httpd -p 80 -h /www; httpd -p 81 -h /www; echo up; ${FOREVER}` },
      {},
      { app: { ports } },
    );
    const get = async (port: number) =>
      (await run(["curl", "-s", "-m", "2", `http://${NODE}:${port}/ok`])).stdout;
    const rules = () => output(["iptables", "-t", "nat", "-S"]);
    await whileRunning("ported", text, "[app] up", async () => {
      expect(await get(18_080)).toBe("well\n");
      expect(await get(18_081)).toBe("");
      expect(await rules()).toContain("127.0.0.9/32");
    });
    expect(await get(18_080)).toBe("");
    expect(await rules()).not.toMatch(/1808[01]/);
  });

  test("a private image is pulled with the pod's secrets, and with nothing else", async () => {
    const image = `${registry.host}/private:1`;
    const secret = (name: string, password: string) => {
      const auths = { [registry.host]: { auth: Buffer.from(`pods:${password}`).toString("base64") } };
      const type = "kubernetes.io/dockerconfigjson";
      const data = { ".dockerconfigjson": Buffer.from(JSON.stringify({ auths })).toString("base64") };
      return JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name }, type, data });
    };
    const pod = (name: string, secrets: readonly string[]) =>
      podText(
        name,
        { app: "echo pulled" },
        { imagePullSecrets: secrets.map((each) => ({ name: each })) },
        { app: { image, imagePullPolicy: "Always" } },
      );
    const given = [secret("right", PASSWORD), secret("wrong", "guess")];
    const runPod = (name: string, secrets: readonly string[]) =>
      runUntilSaid(node, [pod(name, secrets), ...given].join("\n---\n"), ["Failed to pull image"]);
    for (const [name, secrets] of [
      ["nobody", []],
      ["stranger", ["wrong"]],
    ] as const) {
      const { stdout, stderr } = await runPod(name, secrets);
      expect(stdout).toBe("");
      expect(stderr).toMatch(
        new RegExp(
          `Failed to pull image "${image}": .*(?:401|authorization failed|authentication required)`,
          "i",
        ),
      );
    }
    const { stdout, stderr } = await runPod("friend", ["wrong", "missing", "right"]);
    expect({ stdout, stderr: stdout === "" ? stderr : "" }).toEqual({ stdout: "[app] pulled\n", stderr: "" });
    expect(stderr).toContain(
      "Unable to retrieve some image pull secrets (missing); attempting to pull the image may not succeed.",
    );
  });

  test("probes by HTTPS, whoever signed the certificate, and by gRPC of one service and of another", async () => {
    // A server by Bun, which this machine's libraries run in the image of busybox.
    const paths = {
      repository: REPOSITORY,
      bun: dirname(process.execPath),
      lib: "/lib",
      lib64: "/lib64",
      tls: folder,
    };
    const server = [
      ...[process.execPath, join(REPOSITORY, "test/support/probed-server.ts"), "9000"],
      ...["9443", join(folder, "cert.pem"), join(folder, "key.pem")],
    ];
    const mounts = Object.entries(paths).map(([name, mountPath]) => ({ name, mountPath, readOnly: true }));
    const ready = (handler: object) => ({
      readinessProbe: { ...handler, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1 },
    });
    const https = (path: string) => ready({ httpGet: { scheme: "HTTPS", port: 9443, path } });
    const grpc = (service?: string) => ready({ grpc: { port: 9000, ...(service && { service }) } });
    const text = podText(
      "probed",
      { server: "", secure: FOREVER, failing: FOREVER, named: FOREVER, stopped: FOREVER, unknown: FOREVER },
      {
        terminationGracePeriodSeconds: 1,
        volumes: Object.entries(paths).map(([name, path]) => ({ name, hostPath: { path } })),
      },
      {
        server: { command: server, volumeMounts: mounts, ...grpc() },
        secure: https("/ok"),
        failing: https("/bad"),
        named: grpc("ready"),
        stopped: grpc("stopped"),
        unknown: grpc("nobody"),
      },
    );
    await whileRunning("probed", text, "[server] https", async () => {
      const readyOnes = async () => {
        const { status } = JSON.parse((await node.pod(["status", "probed", "-o", "json"])).stdout);
        return status.containerStatuses
          .filter((each: { ready: boolean }) => each.ready)
          .map((each: { name: string }) => each.name);
      };
      await until("those that are ready", async () => (await readyOnes()).join() === "server,secure,named");
      const events = async () => (await node.pod(["status", "probed"])).stdout;
      for (const words of [
        "Readiness probe failed: HTTP probe failed with statuscode: 500",
        'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")',
        "Readiness probe failed: error: health rpc probe failed: unknown service",
      ])
        await until(
          () => words,
          async () => (await events()).includes(words),
        );
      expect(await readyOnes()).toEqual(["server", "secure", "named"]);
    });
  });

  test("a runtime class is a handler of the runtime; its overhead is the pod's, not its containers'", async () => {
    const uid = crypto.randomUUID();
    const resources = { limits: { memory: "32Mi", cpu: "100m" } };
    const text = podText(
      "classy",
      { app: `echo up; ${FOREVER}` },
      { runtimeClassName: "other", overhead: { memory: "16Mi", cpu: "50m" } },
      { app: { resources } },
      { uid },
    );
    const calls = (): string[] => readFileSync(join(folder, "calls"), "utf8").trim().split("\n");
    const before = existsSync(join(folder, "calls")) ? calls().length : 0;
    await whileRunning("classy", text, "[app] up", async () => {
      const { containerStatuses } = JSON.parse(
        (await node.pod(["status", "classy", "-o", "json"])).stdout,
      ).status;
      const id = containerStatuses[0].containerID.replace(`${runtimeName}://`, "");
      const created = calls()
        .slice(before)
        .filter((line) => / create /.test(line));
      expect(created).toHaveLength(sandboxIsProcess ? 2 : 1);
      expect(created.at(-1)).toContain(id);
      const v1 = existsSync("/sys/fs/cgroup/memory");
      const read = (controller: string, file: string): string =>
        readFileSync(join("/sys/fs/cgroup", v1 ? controller : "", "kubepods", file), "utf8").trim();
      const memory = v1 ? "memory.limit_in_bytes" : "memory.max";
      expect([
        read("memory", `pod${uid}/${memory}`),
        read("memory", `pod${uid}/${cgroupPrefix}${id}/${memory}`),
      ]).toEqual([String(48 << 20), String(32 << 20)]);
      const quota = (path: string) =>
        v1 ? read("cpu", `${path}/cpu.cfs_quota_us`) : read("", `${path}/cpu.max`).split(" ")[0];
      expect([quota(`pod${uid}`), quota(`pod${uid}/${cgroupPrefix}${id}`)]).toEqual(["15000", "10000"]);
    });
    const none = podText("none", { app: "true" }, { runtimeClassName: "absent" });
    const { stderr } = await runUntilSaid(node, none, [noHandler]);
    expect(stderr).toMatch(new RegExp(`FailedCreatePodSandBox none: .*${noHandler}.*absent`));
  });

  test("mounts of a container reach the host and those who want them; the host's reach them too", async () => {
    const shared = join(folder, "shared");
    for (const name of ["in", "late"]) mkdirSync(join(shared, name), { recursive: true });
    const wait = (file: string) => `until test -e /v/${file}; do sleep 0.05; done`;
    const mount = (mountPropagation: string) => ({
      volumeMounts: [{ name: "v", mountPath: "/v", mountPropagation }],
    });
    const seen = (name: string) => `touch /v/${name}; ${wait("go")}; echo $(ls /v/in /v/late)`;
    const text = podText(
      "spread",
      {
        mounts: `echo up; ${wait("sees")}; ${wait("blind")}; mount -t tmpfs in /v/in; touch /v/in/inside /v/mounted; ${wait("go")}; echo $(ls /v/in /v/late)`,
        sees: seen("sees"),
        blind: seen("blind"),
      },
      { volumes: [{ name: "v", hostPath: { path: shared } }] },
      {
        mounts: { ...mount("Bidirectional"), securityContext: { privileged: true } },
        sees: mount("HostToContainer"),
        blind: mount("None"),
      },
    );
    const inDaemon = ["nsenter", "--target", String(node.daemon.pid), "--mount"];
    const child = node.startPod(["run", "-q", "--rm", "-f", "-"], text);
    await until("the mount", () => existsSync(join(shared, "mounted")));
    expect(await output([...inDaemon, "ls", join(shared, "in")])).toBe("inside\n");
    await output([...inDaemon, "mount", "-t", "tmpfs", "late", join(shared, "late")]);
    await output([...inDaemon, "touch", join(shared, "late/outside")]);
    writeFileSync(join(shared, "go"), "");
    const lines: string[] = [];
    for await (const line of linesOf(child.stdout)) if (line !== "[mounts] up") lines.push(line);
    expect({ code: await child.exited, lines: lines.sort() }).toEqual({
      code: 0,
      lines: [
        "[blind] /v/in: /v/late:",
        "[mounts] /v/in: inside /v/late: outside",
        "[sees] /v/in: inside /v/late: outside",
      ],
    });
    for (const name of ["in", "late"]) await output([...inDaemon, "umount", join(shared, name)]);
  });
});
