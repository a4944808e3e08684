/** A node moves from containerd to bunkerd and back: one config.toml, root, state and socket; images pulled by CRI, pods that run on. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ImageService, RuntimeService } from "#gen/runtime/v1/api_pb.ts";
import { until } from "../../support/containers.ts";
import {
  BOX_IMAGE,
  type CriDaemon,
  exited,
  logOf,
  PAUSE_IMAGE,
  podConfig,
  podLeftovers,
  prepareCri,
  removePods,
  runContainer,
  script,
} from "../../support/cri.ts";
import {
  bunkerdCommand,
  containerdProgram,
  type DaemonKind,
  daemonKinds,
  startDaemon,
} from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { connectGrpc } from "../../support/grpc.ts";
import { enterHostNetwork } from "../../support/netns.ts";
import { freePort } from "../../support/ports.ts";
import { output, run, temporaryFolder } from "../../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../../support/registry.ts";
import { buildImage, type TarEntry, tar } from "../../support/tar.ts";

const PORT = 5000;
let host: ReturnType<typeof enterHostNetwork>;
let registry: Registry;
let plugins: string;

beforeAll(async () => {
  await prepareCri();
  await debianPackage("bookworm", "docker-registry");
  plugins = join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
  // Filled outside, as fetch stays there, and started again inside.
  const folder = temporaryFolder();
  const outside = await startRegistry(folder, await freePort());
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...["sh", "echo", "sleep", "cat"].map(
      (name): TarEntry => ({ name: `bin/${name}`, type: "2", link: "busybox" }),
    ),
  ]);
  const pack = (blob: Buffer) => ({ blob, mediaType: "application/vnd.oci.image.layer.v1.tar" });
  const box = buildImage("box", [layer], pack, { Env: ["PATH=/bin"], Cmd: ["sleep", "1000000"] });
  for (const name of ["box", "pause"]) await pushImage(outside, `library/${name}`, "1", box);
  await outside.stop();
  host = enterHostNetwork();
  registry = await startRegistry(folder, PORT);
});
afterAll(async () => {
  await registry.stop();
  host[Symbol.dispose]();
});

/** What `containerd config default` prints (version 3), with this machine's places. */
async function printedDefault(folder: string): Promise<string> {
  const text = await output([await containerdProgram("2.1", "containerd"), "config", "default"]);
  return [
    ["/var/lib/containerd", join(folder, "root")],
    ["/run/containerd/containerd.sock", join(folder, "d.sock")],
    ["/run/containerd", join(folder, "state")],
    ["registry.k8s.io/pause:3.10", PAUSE_IMAGE],
    ["restrict_oom_score_adj = false", "restrict_oom_score_adj = true"],
    ["bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']", `bin_dirs = ['${plugins}']`],
    ["/etc/cni/net.d", join(folder, "net.d")],
    ["registry]\n      config_path = ''", `registry]\n      config_path = '${join(folder, "certs.d")}'`],
    ["'/opt/containerd'", `'${join(folder, "opt")}'`],
    // Its socket is the machine's.
    ["disable = false\n    socket_path", "disable = true\n    socket_path"],
  ].reduce((changed, [from = "", to = ""]) => {
    expect(changed).toContain(from);
    return changed.replace(from, to);
  }, text);
}

/** `/etc/containerd/config.toml` of Debian 12 (version 2), with this machine's places. */
async function ofDebian(folder: string): Promise<string> {
  const path = join(await debianPackage("bookworm", "containerd"), "etc/containerd/config.toml");
  const cri = '[plugins."io.containerd.grpc.v1.cri"]\n';
  const keys = `sandbox_image = "${PAUSE_IMAGE}"\nrestrict_oom_score_adj = true\n`;
  const text = readFileSync(path, "utf8")
    .replace("/usr/lib/cni", plugins)
    .replace("/etc/cni/net.d", join(folder, "net.d"))
    .replace("/var/lib/containerd/opt", join(folder, "opt"))
    .replace(cri, `${cri}${keys}`);
  expect(text).toContain(keys);
  return [
    `root = "${join(folder, "root")}"\nstate = "${join(folder, "state")}"`,
    text,
    `[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${join(folder, "certs.d")}"`,
    '[plugins."io.containerd.nri.v1.nri"]\ndisable = true',
    `[grpc]\naddress = "${join(folder, "d.sock")}"`,
  ].join("\n");
}

function writeNode(folder: string): void {
  const bridge = `cni-${folder.slice(-6)}`;
  const ipam = { type: "host-local", ranges: [[{ subnet: "10.88.0.0/16" }]], dataDir: join(folder, "ipam") };
  const list = {
    cniVersion: "1.0.0",
    name: bridge,
    plugins: [{ type: "bridge", bridge, isGateway: true, ipam }],
  };
  mkdirSync(join(folder, "net.d"));
  writeFileSync(join(folder, "net.d/10-pods.conflist"), JSON.stringify(list));
  mkdirSync(join(folder, "certs.d/docker.io"), { recursive: true });
  writeFileSync(join(folder, "certs.d/docker.io/hosts.toml"), `server = "http://${registry.host}"\n`);
}

async function open(kind: DaemonKind, folder: string, config: string): Promise<CriDaemon> {
  const daemon = await startDaemon(kind, { folder, wholeConfig: () => config });
  const connection = connectGrpc(daemon.socket);
  const runtime = connection.client(RuntimeService);
  await until("CRI answers", () => runtime.version({}).catch(() => false));
  return {
    daemon,
    runtime,
    client: (service) => connection.client(service),
    close: () => connection.close(),
    async [Symbol.asyncDispose]() {
      await removePods(runtime).finally(() => connection.close());
      await daemon.stop();
    },
  };
}

/** Images, and the pods' states and addresses. */
async function nodeOf({ runtime, client }: CriDaemon) {
  const { images } = await client(ImageService).listImages({});
  const { items } = await runtime.listPodSandbox({});
  const statuses = items.map(({ id }) => runtime.podSandboxStatus({ podSandboxId: id }));
  return {
    images,
    pods: (await Promise.all(statuses)).map(({ status }) => [status?.id, status?.state, status?.network?.ip]),
  };
}

const FILES = [
  ["the default that containerd 2.1 prints, version 3", printedDefault],
  ["Debian 12's, version 2", ofDebian],
] as const;

describe.skipIf(daemonKinds("containerd-2.1", "bunkerd").length < 2)(
  "one config.toml for both daemons",
  () => {
    test.each(FILES)(
      "%s: a node goes over to bunkerd and comes back",
      async (_name, configOf) => {
        const folder = temporaryFolder();
        writeNode(folder);
        const config = await configOf(folder);
        let cri = await open("containerd-2.1", folder, config);
        try {
          await cri.client(ImageService).pullImage({ image: { image: BOX_IMAGE } });
          const pod = podConfig(cri.daemon);
          const { podSandboxId } = await cri.runtime.runPodSandbox({ config: pod });
          const counting = script("counting", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done");
          const first = await runContainer(cri, podSandboxId, pod, counting);
          for (const kind of ["bunkerd", "containerd-2.1"] as const) {
            const before = await nodeOf(cri);
            expect(before.images.flatMap(({ repoTags }) => repoTags)).toContain(BOX_IMAGE);
            cri.close();
            await cri.daemon.halt();
            cri = await open(kind, folder, config);
            expect(await nodeOf(cri)).toEqual(before);
            const { stdout } = await cri.runtime.execSync({
              containerId: first,
              cmd: ["echo", kind],
              timeout: 10n,
            });
            expect(Buffer.from(stdout).toString()).toBe(`${kind}\n`);
            const now = logOf(pod, counting).length;
            await until(`the log goes on under ${kind}`, () => logOf(pod, counting).length > now);
            const own = await runContainer(cri, podSandboxId, pod, script(`of-${kind}`, "echo here; exit 3"));
            expect(await exited(cri, own)).toMatchObject({ exitCode: 3 });
            await cri.client(ImageService).pullImage({ image: { image: BOX_IMAGE } });
          }
          const lines = logOf(pod, counting).trimEnd().split("\n");
          expect(lines).toEqual(lines.map((_line, index) => String(index + 1)));
          await removePods(cri.runtime);
          expect(podLeftovers(cri.daemon)).toEqual([]);
        } finally {
          await cri[Symbol.asyncDispose]();
        }
      },
      60_000,
    );
  },
);

test("config check finds no fault in the files that containerd's packages bring and print", async () => {
  const folder = temporaryFolder();
  const check = async (name: string, text: string): Promise<string[]> => {
    writeFileSync(join(folder, name), text);
    const command = [...bunkerdCommand(), "--config", join(folder, name), "config", "check"];
    const { code, stdout, stderr } = await run(command);
    expect(code).toBe(0);
    return `${stdout}${stderr}`
      .trimEnd()
      .replaceAll(`${join(folder, name)}: `, "")
      .split("\n");
  };
  const [newest, old] = await Promise.all(
    (["2.1", "1.6"] as const).map(async (version) =>
      output([await containerdProgram(version, "containerd"), "config", "default"]),
    ),
  );
  expect(await check("3.toml", newest ?? "")).toEqual(["1 file: 0 errors, 0 warnings"]);
  // Keys that containerd 2 has dropped.
  expect(await check("2.toml", old ?? "")).toEqual([
    'warning: plugins."io.containerd.runtime.v1.linux".runtime: ignored: containerd 2 has no runtime v1',
    'warning: plugins."io.containerd.runtime.v1.linux".shim: ignored: containerd 2 has no runtime v1',
    'warning: plugins."io.containerd.grpc.v1.cri".containerd.default_runtime.base_runtime_spec: ignored: set default_runtime_name',
    'warning: plugins."io.containerd.grpc.v1.cri".containerd.untrusted_workload_runtime.base_runtime_spec: ignored: use a runtime handler',
    "1 file: 0 errors, 4 warnings",
  ]);
  const packaged = join(await debianPackage("bookworm", "containerd"), "etc/containerd/config.toml");
  expect(await check("debian.toml", readFileSync(packaged, "utf8"))).toEqual([
    "1 file: 0 errors, 0 warnings",
  ]);
}, 20_000);
