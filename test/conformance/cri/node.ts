/** A node in the namespaces of this process: a registry, a bridge for pods, and the configuration that both daemons take. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DaemonOptions } from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { output, removeFolder, temporaryFolder } from "../../support/processes.ts";
import { startRegistry } from "../../support/registry.ts";
import { MIRRORED, pushCritestImages } from "./images.ts";

const REGISTRY_PORT = 5000;
const SUBNET = "10.88.0.0/16";

/** config.toml's lines for pods whose images come from the registry and whose network is a bridge. */
function criConfig(folder: string, plugins: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return [
    `[${cri}]`,
    "restrict_oom_score_adj = true",
    'sandbox_image = "registry.k8s.io/pause:3.10"',
    `[${cri}.cni]`,
    `bin_dir = ${JSON.stringify(plugins)}`,
    `conf_dir = ${JSON.stringify(join(folder, "net.d"))}`,
    `[${cri}.registry]`,
    `config_path = ${JSON.stringify(join(folder, "certs.d"))}`,
  ].join("\n");
}

function writeNetwork(folder: string): void {
  mkdirSync(join(folder, "net.d"), { recursive: true });
  const ipam = {
    type: "host-local",
    dataDir: join(folder, "leases"),
    ranges: [[{ subnet: SUBNET }]],
    routes: [{ dst: "0.0.0.0/0" }],
  };
  const plugins = [
    {
      type: "bridge",
      bridge: "cni0",
      isGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam,
    },
    { type: "portmap", capabilities: { portMappings: true } },
  ];
  const list = { cniVersion: "1.0.0", name: "pods", plugins };
  writeFileSync(join(folder, "net.d/10-pods.conflist"), JSON.stringify(list));
}

function writeMirrors(folder: string, host: string): void {
  for (const name of MIRRORED) {
    mkdirSync(join(folder, "certs.d", name), { recursive: true });
    const lines = [
      `server = "http://${host}"`,
      `[host."http://${host}"]`,
      'capabilities = ["pull", "resolve"]',
    ];
    writeFileSync(join(folder, "certs.d", name, "hosts.toml"), `${lines.join("\n")}\n`);
  }
}

export interface Node extends AsyncDisposable {
  /** What a daemon of that name starts with. */
  daemonOptions(name: string): DaemonOptions;
}

/** To be called below `unshare --net --mount --propagation private`. */
export async function startNode(): Promise<Node> {
  await output(["ip", "link", "set", "lo", "up"]);
  const folder = temporaryFolder();
  // Named network namespaces and results of CNI belong to the machine: here they are the run's own.
  for (const path of ["/var/run/netns", "/var/lib/cni"]) {
    mkdirSync(path, { recursive: true });
    await output(["mount", "-t", "tmpfs", "tmpfs", path]);
  }
  const registry = await startRegistry(join(folder, "registry"), REGISTRY_PORT);
  await pushCritestImages(registry);
  const plugins = join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
  return {
    daemonOptions(name) {
      const own = join(folder, name);
      writeNetwork(own);
      writeMirrors(own, registry.host);
      const disabledPlugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"];
      return { config: criConfig(own, plugins), disabledPlugins };
    },
    async [Symbol.asyncDispose]() {
      await registry.stop();
      removeFolder(folder);
    },
  };
}
