/**
 * Runs critest of kubernetes-sigs/cri-tools, built outside the repository, on containerd and on bunkerd, and writes what passed:
 *
 *     unshare --net --mount --propagation private bun test/conformance/cri/critest.ts CRITEST [KIND ...] [-- critest's own flags]
 *
 * Everything happens in the network and mount namespaces that `unshare` makes: registry, bridge, pods. The results stand in
 * `test/conformance/cri/results/<kind>.txt`, a case a line.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Daemon, type DaemonKind, startDaemon } from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { output, removeFolder, run, temporaryFolder } from "../../support/processes.ts";
import { startRegistry } from "../../support/registry.ts";
import { MIRRORED, pushCritestImages } from "./images.ts";

const REGISTRY_PORT = 5000;
const SUBNET = "10.88.0.0/16";

interface Spec {
  readonly ContainerHierarchyTexts: readonly string[] | null;
  readonly LeafNodeText: string;
  readonly LeafNodeType: string;
  readonly State: string;
  readonly Failure?: { readonly Message: string };
}

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

async function runCritest(critest: string, daemon: Daemon, flags: readonly string[]): Promise<Spec[]> {
  const report = join(daemon.folder, "report.json");
  const images = join(daemon.folder, "images.yaml");
  writeFileSync(images, "defaultTestContainerImage: registry.k8s.io/e2e-test-images/busybox:1.29-2\n");
  const endpoint = `unix://${daemon.socket}`;
  const command = [
    critest,
    `--runtime-endpoint=${endpoint}`,
    `--image-endpoint=${endpoint}`,
    `--test-images-file=${images}`,
    `--ginkgo.json-report=${report}`,
    "--ginkgo.no-color",
    ...flags,
  ];
  const finished = await run(command, { cwd: daemon.folder });
  writeFileSync(`/tmp/critest-${daemon.kind}.log`, finished.stdout + finished.stderr);
  const [suite] = (await Bun.file(report).json()) as { SpecReports: Spec[] | null }[];
  return (suite?.SpecReports ?? []).filter(({ LeafNodeType }) => LeafNodeType === "It");
}

function lineOf(spec: Spec): string {
  return `${spec.State}: ${[...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(" ")}`;
}

const [critest, ...rest] = process.argv.slice(2);
if (critest === undefined) throw new Error("usage: critest.ts CRITEST [KIND ...] [-- flags]");
const split = rest.includes("--") ? rest.indexOf("--") : rest.length;
const flags = rest.slice(split + 1);
const kinds = (split === 0 ? ["containerd-2.1", "bunkerd"] : rest.slice(0, split)) as DaemonKind[];

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
for (const kind of kinds) {
  const own = join(folder, kind);
  writeNetwork(own);
  writeMirrors(own, registry.host);
  const disabledPlugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"];
  const daemon = await startDaemon(kind, { config: criConfig(own, plugins), disabledPlugins });
  const specs = await runCritest(critest, daemon, flags);
  const results = join(import.meta.dir, "results");
  mkdirSync(results, { recursive: true });
  if (flags.length === 0)
    writeFileSync(join(results, `${kind}.txt`), `${specs.map(lineOf).sort().join("\n")}\n`);
  for (const spec of specs) {
    if (spec.State === "failed" || flags.length > 0) {
      process.stdout.write(`${kind}: ${lineOf(spec)}\n${spec.Failure?.Message ?? ""}\n`);
    }
  }
  const count = (state: string) => specs.filter(({ State }) => State === state).length;
  process.stdout.write(
    `${kind}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped\n`,
  );
  writeFileSync(`/tmp/critest-${kind}.daemon.log`, daemon.log());
  await daemon.stop();
}
await registry.stop();
removeFolder(folder);
