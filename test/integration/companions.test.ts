/** Programs of others that are made to go with containerd: Debian's snapshotters of lazy images behind a proxy, and imgcrypt's client and decoder of encrypted ones. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ctrIn, endNamespaces, leftovers, newNamespace, succeeding, until } from "../support/containers.ts";
import { type Daemon, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { type Finished, removeFolder, run, start, temporaryFolder } from "../support/processes.ts";
import { buildImage, tar } from "../support/tar.ts";

const IMAGE = "docker.io/library/box:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const folder = temporaryFolder();
const archive = join(folder, "box.tar");
const kinds = daemonKinds("containerd-2.1", "bunkerd");

beforeAll(async () => {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...["sh", "cat", "echo"].map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
    { name: "secret", data: "the secret\n" },
  ]);
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes), mediaType: LAYER });
  writeFileSync(archive, buildImage(IMAGE, [layer], pack).archive);
});

beforeAll(() => mkdirSync(join(folder, "no-keys")));

const NO_KEY = "missing private key needed for decryption";

afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

/** [name in the configuration, its command line by socket and root] */
const snapshotters = [
  [
    "soci",
    async (socket: string, root: string) => {
      const config = `${root}.toml`;
      writeFileSync(config, "");
      const program = join(await debianPackage("sid", "soci-snapshotter"), "usr/bin/soci-snapshotter-grpc");
      return [program, "--address", socket, "--config", config, "--root", root];
    },
  ],
  [
    "nydus",
    async (socket: string, root: string) => {
      const config = `${root}.toml`;
      const words = [
        "version = 1",
        `root = "${root}"`,
        `address = "${socket}"`,
        'daemon_mode = "none"',
        ...["[system]", "enable = false", "[daemon]", 'fs_driver = "nodev"'],
      ];
      writeFileSync(config, words.join("\n"));
      const program = join(await debianPackage("sid", "nydus-snapshotter"), "usr/bin/containerd-nydus-grpc");
      // Ordinary images need neither of these two, but it looks for them.
      const others = ["--nydusd", "/bin/true", "--nydus-image", "/bin/true"];
      return [program, "--config", config, "--log-to-stdout", ...others];
    },
  ],
] as const;

describe.each(kinds)("%s", (kind) => {
  test.each(snapshotters)("runs containers on %s's snapshots and lets go of them", async (name, command) => {
    const home = join(folder, `${kind}-${name}`);
    mkdirSync(home);
    const socket = join(home, "s.sock");
    const log = join(home, "log");
    const child = start(await command(socket, join(home, "root")), {
      stdin: "ignore",
      stdout: Bun.file(log),
      stderr: "ignore",
    });
    try {
      await until(`${name} listens`, () => existsSync(socket));
      const config = `[proxy_plugins.${name}]\ntype = "snapshot"\naddress = "${socket}"`;
      await using daemon = await startDaemon(kind, { config });
      const namespace = newNamespace();
      const ctr = ctrIn("2.1", daemon, namespace);
      const ok = succeeding(ctr);
      await ok("images", "import", "--local", "--snapshotter", name, archive);
      const words = ["run", "--rm", "--snapshotter", name, IMAGE, "demo", "sh", "-c"];
      expect(await ok(...words, "echo new > /new; cat /secret /new")).toBe("the secret\nnew\n");
      const listed = await ok("snapshots", "--snapshotter", name, "ls");
      expect(listed).toMatch(/^sha256:\S+ +Committed *$/m);
      expect(listed).not.toContain("demo");
      expect(await ok("snapshots", "ls")).not.toContain("sha256:");
      await ok("images", "rm", "--sync", IMAGE);
      expect(await ok("snapshots", "--snapshotter", name, "ls")).not.toContain("sha256:");
      expect(leftovers(daemon.folder, namespace)).toEqual([]);
    } finally {
      child.kill("SIGTERM");
      await child.exited;
    }
  });

  test("imgcrypt encrypts an image; only who has the key runs it", async () => {
    const imgcrypt = join(await debianPackage("sid", "imgcrypt"), "usr/bin");
    const key = join(folder, `${kind}.pem`);
    await run(["openssl", "genrsa", "-out", key, "2048"]);
    await run(["openssl", "rsa", "-in", key, "-pubout", "-out", `${key}.pub`]);
    const config = [
      WITHOUT_COLLECTION,
      `[stream_processors."io.containerd.ocicrypt.decoder.v1.tar.gzip"]`,
      `accepts = ["${LAYER}+encrypted"]`,
      `returns = "${LAYER}"`,
      `path = "${imgcrypt}/ctd-decoder"`,
      `args = ["--decryption-keys-path", "${join(folder, "no-keys")}"]`,
    ].join("\n");
    await using daemon = await startDaemon(kind, { config });
    const namespace = newNamespace();
    const client = (...args: readonly string[]): Promise<Finished> =>
      run([join(imgcrypt, "ctr-imgcrypt"), "--address", daemon.socket, "-n", namespace, ...args]);
    const secret = "docker.io/library/secret:1";
    await importPacked(daemon, namespace);
    expect((await client("images", "encrypt", "--recipient", `jwe:${key}.pub`, IMAGE, secret)).code).toBe(0);
    expect((await client("images", "layerinfo", secret)).stdout).toMatch(/ jwe +\[jwe\]/);
    const words = [secret, "demo", "sh", "-c", "cat /secret"];
    const refused = await client("run", "--rm", ...words);
    expect(refused.code).toBe(1);
    // containerd may have read the decoder's empty output before it sees that the decoder failed.
    const reasons = kind === "bunkerd" ? [NO_KEY] : [NO_KEY, "wrong diff id calculated on extraction"];
    expect(reasons.filter((reason) => refused.stderr.includes(reason))).not.toEqual([]);
    expect(await client("run", "--rm", "--key", key, ...words)).toMatchObject({
      code: 0,
      stdout: "the secret\n",
    });
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  });
});

/** Without its snapshots: those of the encrypted image are the same, and would be taken as they are. */
async function importPacked(daemon: Daemon, namespace: string): Promise<void> {
  const imported = await ctrIn("2.1", daemon, namespace)("images", "import", "--no-unpack", archive);
  expect(imported.code).toBe(0);
}
