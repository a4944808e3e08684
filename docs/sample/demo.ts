/**
 * `make demo`: starts a daemon in a folder of its own and runs `pod.yaml` on it. Shim, runc and CNI plugins are this machine's or Debian's; the image is
 * made of Debian's busybox, or is the one given: `make demo IMAGE=docker.io/library/busybox:latest`. Ends with the pod's exit code and leaves nothing.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { accepts, bunkerdCommand, containerdProgram } from "../../test/support/daemons.ts";
import { debianPackage } from "../../test/support/debian.ts";
import { output, removeFolder, start, temporaryFolder } from "../../test/support/processes.ts";
import { buildImage, type TarEntry, tar } from "../../test/support/tar.ts";

const MADE = "demo.local/box:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const NAMESPACE = "k8s.io";

const given = process.argv[2] ?? "";
const folder = temporaryFolder();
const socket = join(folder, "bunkerd.sock");

function config(): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return [
    "version = 2",
    `root = "${folder}/root"`,
    `state = "${folder}/state"`,
    `[grpc]\naddress = "${socket}"`,
    `[${cri}]\nrestrict_oom_score_adj = true\nsandbox_image = "${given || MADE}"`,
    '[plugins."io.containerd.nri.v1.nri"]\ndisable = true',
  ].join("\n");
}

async function writeImage(path: string): Promise<void> {
  const busybox = join(await debianPackage("bookworm", "busybox-static"), "bin/busybox");
  const applets = (await output([busybox, "--list"])).trim().split("\n");
  const layer: TarEntry[] = [
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: readFileSync(busybox) },
    ...applets
      .filter((name) => name !== "busybox")
      .map((name): TarEntry => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
  ];
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes), mediaType: LAYER });
  const settings = { Env: ["PATH=/bin"], Cmd: ["sleep", "2147483647"] };
  writeFileSync(path, buildImage(MADE, [tar(layer)], pack, settings).archive);
}

const found = ["/opt/cni/bin", "/usr/lib/cni"].find((path) => existsSync(path));
const cniPath = found ?? join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
const programs = dirname(await containerdProgram("2.1", "ctr"));
const env = { ...process.env, PATH: [process.env["PATH"], programs].join(delimiter), CNI_PATH: cniPath };
mkdirSync(join(folder, "state"), { recursive: true });
writeFileSync(join(folder, "config.toml"), config());
const log = join(folder, "log");
const [program = "", ...words] = bunkerdCommand();
const daemon = start([program, ...words, "serve", "--config", join(folder, "config.toml")], {
  stdin: "ignore",
  stdout: Bun.file(log),
  stderr: Bun.file(log),
  env,
});
let code = 1;
try {
  while (!(await accepts(socket))) {
    if (daemon.exitCode !== null) throw new Error(readFileSync(log, "utf8"));
    await Bun.sleep(10);
  }
  if (given === "") {
    const archive = join(folder, "image.tar");
    await writeImage(archive);
    const ctr = await containerdProgram("2.1", "ctr");
    await output([ctr, "--address", socket, "-n", NAMESPACE, "images", "import", "--local", archive]);
  }
  const pod = readFileSync(join(import.meta.dir, "pod.yaml"), "utf8").replaceAll(MADE, given || MADE);
  const file = join(folder, "pod.yaml");
  writeFileSync(file, pod);
  const roots = ["--pods-root", join(folder, "pods"), "--logs-root", join(folder, "logs")];
  const endpoint = ["--runtime-endpoint", `unix://${socket}`];
  const run = start([program, ...words, "pod", "run", "--rm", ...endpoint, ...roots, "-f", file], {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    env,
  });
  code = await run.exited;
} finally {
  daemon.kill("SIGTERM");
  await daemon.exited;
  removeFolder(folder);
}
process.exit(code);
