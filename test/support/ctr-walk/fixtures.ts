/** What the walk's scripts work on: images, registries, files. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Blob, Layout } from "../archives.ts";
import type { Daemon } from "../daemons.ts";
import { debianPackage } from "../debian.ts";
import { freePort } from "../ports.ts";
import { type Registry, type RegistrySettings, startRegistry } from "../registry.ts";
import { makeCertificates, makeTokenKeys, startTokenServer } from "../registry-guards.ts";
import { digestOf, tar } from "../tar.ts";

const NAME = "io.containerd.image.name";

/** An index of two platforms, whose layers have a file changed and one removed. */
export interface WalkImage {
  readonly layout: Layout;
  readonly index: Blob;
  readonly names: Readonly<Record<string, string>>;
}

export async function walkImage(): Promise<WalkImage> {
  const base = tar([
    { name: "etc/", type: "5", mode: 0o755 },
    { name: "etc/a", data: "a" },
    { name: "etc/b", data: "b" },
    { name: "greeting", data: "from the lower layer\n" },
  ]);
  const upper = tar([
    { name: "greeting", data: "from the upper layer\n" },
    { name: "etc/.wh.a", data: "" },
  ]);
  const layout = new Layout();
  const amd64 = layout.image([base, upper], "amd64");
  const arm64 = layout.image([base], "arm64");
  const index = layout.index({ amd64, arm64 });
  const manifest = JSON.parse(layout.blobs.get(amd64.digest)?.toString() ?? "{}") as { config: Blob };
  const chain = digestOf(Buffer.from(`${digestOf(base)} ${digestOf(upper)}`));
  const names = {
    MANIFEST: amd64.digest,
    CONFIG: manifest.config.digest,
    INDEX: index.digest,
    CHAIN: chain,
    NONE: `sha256:${"a".repeat(64)}`,
    HELLO: digestOf(Buffer.from("hello\n")),
  };
  return { layout, index, names };
}

/** An image that runs: busybox, a user, variables and a command of its own. */
async function boxArchive(): Promise<Buffer> {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const applets = [
    "sh",
    "cat",
    "echo",
    "id",
    "pwd",
    "ls",
    "grep",
    "head",
    "true",
    "hostname",
    "mkdir",
    "sleep",
    "tty",
    "dd",
    "touch",
  ];
  const layer = tar([
    ...["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"].map((name) => ({ name, type: "5", mode: 0o755 })),
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...applets.map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
    { name: "etc/passwd", data: "root:x:0:0::/:/bin/sh\nnamed:x:1234:1235::/:/bin/sh\n" },
    { name: "etc/group", data: "root:x:0:\nnamed:x:1235:\n" },
    { name: "bin/sh.so", data: "a library" },
  ]);
  const layout = new Layout();
  const config = {
    config: { Env: ["PATH=/bin", "IMAGE_SAYS=image"], Cmd: ["/bin/echo", "from its command"] },
  };
  const image = layout.image([layer], "amd64", config);
  return layout.archive([{ ...image, annotations: { [NAME]: "example.org/box:1" } }]);
}

export interface Registries {
  readonly names: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

/** Four registries that hold `library/box:1`: who may, by what, see the script. */
export async function startRegistries(folder: string, image: WalkImage): Promise<Registries> {
  const pki = await makeCertificates(join(folder, "pki"));
  const keys = await makeTokenKeys(join(folder, "token"));
  const tokens = startTokenServer(keys, true);
  writeFileSync(
    join(folder, "htpasswd"),
    `me:${await Bun.password.hash("s3cret", { algorithm: "bcrypt", cost: 4 })}\n`,
  );
  const launch = async (name: string, settings?: RegistrySettings) =>
    startRegistry(join(folder, name), await freePort(), settings);
  const tls = { certificate: join(pki, "server.pem"), key: join(pki, "server.key") };
  const token = {
    realm: tokens.realm,
    service: "registry",
    issuer: "test",
    rootcertbundle: join(keys, "token.pem"),
  };
  const basic = { realm: "test", path: join(folder, "htpasswd") };
  const all = await Promise.all([
    launch("plain"),
    launch("secure", { tls, auth: { htpasswd: basic } }),
    launch("mutual", { tls: { ...tls, clientcas: [join(pki, "ca.pem")] } }),
    launch("tokens", { auth: { token } }),
  ]);
  const [plain, secure, mutual, byToken] = all as [Registry, Registry, Registry, Registry];
  const data = (name: string) => join(folder, name, "data");
  await fill(plain, image);
  // They keep their files alike.
  for (const name of ["secure", "mutual", "tokens"])
    await Bun.$`cp -r ${data("plain")} ${data(name)}`.quiet();
  const names = {
    HOST: plain.host,
    SECURE: secure.host,
    MUTUAL: mutual.host,
    TOKENS: byToken.host,
    PKI: pki,
  };
  return {
    names: { ...names, IMAGE: `${plain.host}/library/box:1` },
    async stop() {
      for (const registry of all) await registry.stop();
      await tokens.stop(true);
    },
  };
}

async function fill({ host }: Registry, { layout, index }: WalkImage): Promise<void> {
  const manifests = [...layout.blobs].filter(([, bytes]) =>
    /"(?:layers|manifests)":/.test(bytes.toString("latin1")),
  );
  const isManifest = (digest: string) => manifests.some(([each]) => each === digest);
  for (const [digest, bytes] of layout.blobs) {
    if (isManifest(digest)) continue;
    const begun = await expectOk(
      await fetch(`http://${host}/v2/library/box/blobs/uploads/`, { method: "POST" }),
    );
    const url = new URL(begun.headers.get("location") ?? "", `http://${host}`);
    url.searchParams.set("digest", digest);
    await expectOk(await fetch(url, { method: "PUT", body: bytes as Uint8Array<ArrayBuffer> }));
  }
  for (const [digest, bytes] of manifests) {
    const { mediaType } = JSON.parse(bytes.toString()) as { mediaType: string };
    const name = digest === index.digest ? "1" : digest;
    const headers = { "content-type": mediaType };
    const url = `http://${host}/v2/library/box/manifests/${name}`;
    await expectOk(await fetch(url, { method: "PUT", headers, body: bytes as Uint8Array<ArrayBuffer> }));
  }
}

async function expectOk(answer: Response): Promise<Response> {
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status} ${await answer.text()}`);
  return answer;
}

/** Files that lines name, in the daemon's folder. */
export async function writeFiles(
  daemon: Daemon,
  image: WalkImage,
  names: Readonly<Record<string, string>>,
): Promise<void> {
  const write = (name: string, text: string | Uint8Array): void =>
    writeFileSync(join(daemon.folder, name), text);
  // Users of a container's own pass through it.
  chmodSync(daemon.folder, 0o711);
  write("hello.txt", "hello\n");
  write(
    "multi.tar",
    image.layout.archive([{ ...image.index, annotations: { [NAME]: "example.org/multi:1" } }]),
  );
  write("box.tar", await boxArchive());
  write("env", "F=from file\n");
  write("runtime.toml", "");
  write(
    "pod.json",
    JSON.stringify({
      ociVersion: "1.2.0",
      process: { args: ["/bin/true"], cwd: "/" },
      root: { path: names["ROOTFS"] },
    }),
  );
  write(
    "seccomp.json",
    JSON.stringify({
      defaultAction: "SCMP_ACT_ALLOW",
      architectures: ["SCMP_ARCH_X86_64"],
      syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }],
    }),
  );
  write("blockio.yaml", "Classes:\n  gold: []\n");
  write(
    "spec.json",
    JSON.stringify({
      ociVersion: "1.2.0",
      process: { user: { uid: 0, gid: 0 }, args: ["/bin/echo", "configured"], cwd: "/", env: ["PATH=/bin"] },
      root: { path: names["ROOTFS"] },
      mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
      linux: { namespaces: [{ type: "mount" }, { type: "pid" }] },
    }),
  );
  const hosts = (folder: string, host: string, text: string): void => {
    mkdirSync(join(daemon.folder, folder, host), { recursive: true });
    write(join(folder, host, "hosts.toml"), text);
  };
  const plain = `http://${names["HOST"]}`;
  hosts("hosts", "mirrored.example", `server = "${plain}"\n[host."${plain}"]\n`);
  for (const host of [names["SECURE"] ?? "", names["MUTUAL"] ?? ""]) {
    const client = `client = [["${names["PKI"]}/client.pem", "${names["PKI"]}/client.key"]]`;
    const text = `server = "https://${host}"\n[host."https://${host}"]\nca = "${names["PKI"]}/ca.pem"\n${client}\n`;
    // 2.1 and 1.6 write a port in a folder's name differently.
    for (const folder of [`${host.replace(":", "_")}_`, host]) hosts("trusting", folder, text);
  }
}
