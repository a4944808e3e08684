/** Pods with users of their own (`hostUsers: false`), by sid's runc: seen from inside their containers and from the machine. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { criClient } from "../../../src/client/cri.ts";
import { mountPointsBelow } from "../../../src/linux/mountinfo.ts";
import { newerRunc } from "../../support/newer-runc.ts";
import { podNature } from "../../support/pod-natures.ts";
import { box, podText } from "../../support/pod-text.ts";
import { type PodNode, podDaemons, startPodNode } from "../../support/pods.ts";
import { linesOf } from "../../support/processes.ts";

const FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const CONFIG = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "conf" }, data: { a: "A" } };
/** Of a pod's range; kubelets give a pod every 16-bit id. */
const LENGTH = 65_536;

const { program, problem } = await newerRunc();
if (problem !== undefined) process.stdout.write(`skipped: ${problem}\n`);

describe.skipIf(problem !== undefined).each(podDaemons({ both: true }))("%s", (kind) => {
  let node: PodNode;
  let host: string;
  beforeAll(async () => {
    node = await startPodNode(kind, undefined, { handlers: { runc: program } });
    // The users of a pod are nobody's outside, and have to reach its files.
    chmodSync(node.folder, 0o755);
    host = join(node.folder, "host");
    mkdirSync(host);
    writeFileSync(join(host, "file"), "from the host\n");
    chmodSync(host, 0o777);
  }, 60_000);
  afterAll(() => node[Symbol.asyncDispose]());

  interface Status {
    readonly containerStatuses: readonly { readonly name: string; readonly containerID: string }[];
  }

  /** The machine's number of a container's first process. */
  async function pidOf(pod: string, container: string): Promise<number> {
    const { status } = JSON.parse((await node.pod(["status", pod, "-o", "json"])).stdout) as {
      status: Status;
    };
    const found = status.containerStatuses.find(({ name }) => name === container);
    const cri = criClient(node.daemon.socket);
    const { info } = await cri.containerInfo(found?.containerID.replace(/^.*:\/\//, "") ?? "");
    cri.close();
    return JSON.parse(info["info"] ?? "{}").pid;
  }

  /** Of a process of the machine: what `/proc/<pid>/status` says of its users and groups. */
  const idsOf = (pid: number, key: "Uid" | "Gid"): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);

  /** Runs pods until each of the containers has said that it is done; what each has said. */
  async function runUntilAll(text: string, names: readonly string[]) {
    const child = node.startPod(["run", "-q", "--rm", "-f", "-"], text);
    const said = new Map<string, string[]>();
    const all = Promise.withResolvers<void>();
    const reading = (async () => {
      for await (const line of linesOf(child.stdout)) {
        const [, name = "", rest = ""] = /^\[([^\]]+)\] (.*)$/.exec(line) ?? [];
        said.set(name, [...(said.get(name) ?? []), rest]);
        if (names.every((each) => said.get(each)?.at(-1) === "done")) all.resolve();
      }
      all.reject(new Error(`never said all: ${await new Response(child.stderr).text()}`));
    })();
    const end = async (): Promise<number> => {
      child.kill("SIGINT");
      await reading;
      return await child.exited;
    };
    await all.promise;
    return { said, end, [Symbol.asyncDispose]: async () => void (await end()) };
  }

  test("files of containers and volumes are root's inside, processes are nobody's outside; each pod has its own range", async () => {
    const before = mountPointsBelow(node.folder);
    const volumes: { name: string; [source: string]: unknown }[] = [
      { name: "disk", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory" } },
      { name: "conf", configMap: { name: "conf" } },
      { name: "host", hostPath: { path: host } },
    ];
    if (podNature(kind).imagesForUsers)
      volumes.push({ name: "image", image: { reference: "box:1", pullPolicy: "Never" } });
    const volumeMounts = volumes.map(({ name }) => ({ name, mountPath: `/v/${name}` }));
    const part = { name: "disk", mountPath: "/part", subPath: "part" };
    const files = [
      ...["/", "/bin/busybox", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"],
      ...[
        "/v/disk",
        "/v/disk/init",
        "/v/memory",
        "/v/conf/a",
        "/v/host/file",
        "/part/in",
        "/x",
        "/v/host/new",
      ],
    ];
    if (podNature(kind).imagesForUsers) files.push("/v/image", "/v/image/www/ok");
    const look = "echo $(readlink /proc/self/ns/user) $(cat /proc/self/uid_map /proc/self/gid_map)";
    const init = `${look}; id -u; mkdir /v/disk/part; touch /v/disk/init /v/disk/part/in; echo done`;
    const scripts = {
      app: `${look}; touch /x /v/host/new; stat -L -c '%u:%g %n' ${files.join(" ")}; echo done; ${FOREVER}`,
      other: `echo $(id -u) $(id -g) $(id -G); touch /v/disk/mine; stat -c %u:%g /v/disk/mine; echo done; ${FOREVER}`,
      free: `mount -t tmpfs none /tmp; grep -c ' /tmp ' /proc/self/mounts; echo done; ${FOREVER}`,
      kept: `touch /www/new; stat -c %u:%g /www /www/ok /www/new; echo done; ${FOREVER}`,
      bare: `grep -c ' /proc/' /proc/self/mountinfo; echo done; ${FOREVER}`,
    };
    const spec = { hostUsers: false, terminationGracePeriodSeconds: 1 };
    const text = podText(
      "first",
      scripts,
      {
        ...spec,
        volumes,
        initContainers: [box("init", init, { volumeMounts })],
        securityContext: { fsGroup: 3000 },
      },
      {
        app: { volumeMounts: [...volumeMounts, part] },
        other: { volumeMounts, securityContext: { runAsUser: 1000, runAsGroup: 2000 } },
        free: { securityContext: { privileged: true } },
        kept: { image: "kept:1" },
        bare: { securityContext: { procMount: "Unmasked" } },
      },
    );
    const second = podText("second", { app: `${look}; echo done; ${FOREVER}` }, spec);
    await using running = await runUntilAll([text, second, JSON.stringify(CONFIG)].join("\n---\n"), [
      "first/init",
      "first/app",
      "first/other",
      "first/free",
      "first/kept",
      "first/bare",
      "second/app",
    ]);
    const { said } = running;
    const [own = "", ...looked] = said.get("first/app") ?? [];
    const [, hostId = 0] = /^user:\[\d+\] 0 (\d+) 65536 0 \d+ 65536$/.exec(own)?.map(Number) ?? [];
    expect(hostId % LENGTH).toBe(0);
    expect(hostId).toBeGreaterThan(0);
    expect(own).toBe(`${own.split(" ")[0]} 0 ${hostId} ${LENGTH} 0 ${hostId} ${LENGTH}`);
    expect(own.split(" ")[0]).not.toBe(readlinkSync("/proc/self/ns/user"));
    const shared = /^\/(?:v\/disk|v\/memory|v\/conf|part)/;
    expect(looked).toEqual([...files.map((file) => `0:${shared.test(file) ? 3000 : 0} ${file}`), "done"]);
    expect(said.get("first/init")).toEqual([own, "0", "done"]);
    expect(said.get("first/other")).toEqual(["1000 2000 2000 3000 5000", "1000:3000", "done"]);
    expect([said.get("first/free"), said.get("first/bare")]).toEqual([
      ["1", "done"],
      ["0", "done"],
    ]);
    expect(said.get("first/kept")).toEqual(["0:0", "0:0", "0:0", "done"]);
    const [theirs = ""] = said.get("second/app") ?? [];
    expect(Math.abs(Number(theirs.split(" ")[2]) - hostId)).toBeGreaterThanOrEqual(LENGTH);

    // What root makes in a volume is the machine's root's, as the volume itself is.
    expect(statSync(join(host, "new")).uid).toBe(0);
    const [app, other] = await Promise.all([pidOf("first", "app"), pidOf("first", "other")]);
    expect([idsOf(app, "Uid"), idsOf(app, "Gid")]).toEqual([hostId, hostId]);
    expect([idsOf(other, "Uid"), idsOf(other, "Gid")]).toEqual([hostId + 1000, hostId + 2000]);
    const debug = await node.pod(
      ["debug", "first", "-i", "-q", "--image", "box:1", "-c", "late"],
      `${look}; exit 4\n`,
    );
    expect({ code: debug.code, stdout: debug.stdout }).toEqual({ code: 4, stdout: `late\n${own}\n` });
    const ran = await node.pod(["exec", "first", "-c", "app", "--", "sh", "-c", `${look}; id -u`]);
    expect(ran.stdout).toBe(`${own}\n0\n`);

    expect(await running.end()).toBe(130);
    expect(mountPointsBelow(node.folder)).toEqual(before);
    expect((await node.pod(["ls", "-A"])).stdout.trim().split("\n")).toHaveLength(1);
  }, 60_000);
});
