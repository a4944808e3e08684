/** config.toml's CRI tables: registries as they were told of before hosts.toml, and what cannot be carried out. The reference beside ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { ImageService, RuntimeService } from "#gen/runtime/v1/api_pb.ts";
import { ctr } from "../../support/commands.ts";
import { type CriDaemon, prepareCri, startCri } from "../../support/cri.ts";
import { bunkerdCommand, type DaemonKind, daemonKinds, startDaemon } from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { connectGrpc, errorOf } from "../../support/grpc.ts";
import { freePort } from "../../support/ports.ts";
import { removeFolder, run, temporaryFolder } from "../../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../../support/registry.ts";
import { buildImage, tar } from "../../support/tar.ts";

const folder = temporaryFolder();
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const CREDENTIALS = "kubelet:secret";
let open: Registry;
let locked: Registry;

const DISABLED = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"];

const imageOf = (content: string) =>
  buildImage(
    "built",
    [tar([{ name: "file", data: content }])],
    (layer) => ({ blob: gzipSync(layer), mediaType: LAYER }),
    {},
  );

beforeAll(async () => {
  await prepareCri();
  await debianPackage("bookworm", "docker-registry");
  open = await startRegistry(join(folder, "open"), await freePort());
  await pushImage(open, "team/app", "1", imageOf("open"));
  const path = join(folder, "htpasswd");
  const [name = "", password = ""] = CREDENTIALS.split(":");
  writeFileSync(path, `${name}:${await Bun.password.hash(password, { algorithm: "bcrypt", cost: 4 })}\n`);
  locked = await startRegistry(join(folder, "locked"), await freePort(), {
    auth: { htpasswd: { realm: "r", path } },
  });
  const authorization = `Basic ${Buffer.from(CREDENTIALS).toString("base64")}`;
  await pushImage(locked, "team/secret", "1", imageOf("locked"), { authorization });
});
afterAll(async () => {
  await open.stop();
  await locked.stop();
  removeFolder(folder);
});

const CRI = '[plugins."io.containerd.grpc.v1.cri"';
const REGISTRY = `${CRI}.registry`;

async function oldConfiguration(): Promise<string> {
  const byName = locked.host.replace("127.0.0.1", "localhost");
  return [
    // Nobody listens at the first; the second answers.
    `${REGISTRY}.mirrors."mirrored.example"]`,
    `endpoint = ["http://127.0.0.1:${await freePort()}", "http://${open.host}"]`,
    `${REGISTRY}.mirrors."path.example"]\nendpoint = ["http://${open.host}/v2/"]`,
    `${REGISTRY}.mirrors."locked.example"]\nendpoint = ["http://${locked.host}"]`,
    // For all others; plain http as it is a loopback address.
    `${REGISTRY}.mirrors."*"]\nendpoint = ["${open.host}"]`,
    `${REGISTRY}.configs."${locked.host}".auth]\nusername = "kubelet"\npassword = "of old"`,
    `${REGISTRY}.configs."${byName}".auth]\nusername = "kubelet"\npassword = "secret"`,
    `${REGISTRY}.auths."http://${locked.host}"]\nauth = "${Buffer.from(CREDENTIALS).toString("base64")}"`,
  ].join("\n");
}

async function pulled(kind: DaemonKind): Promise<unknown> {
  const plugin = `ignore_deprecation_warnings = ["io.containerd.deprecation/cri-registry-configs"]`;
  await using cri = await startCri(kind, { plugin, config: await oldConfiguration() });
  const images = cri.client(ImageService);
  const pull = async (image: string, more: object = {}) =>
    (await images.pullImage({ image: { image }, ...more })).imageRef;
  const told: Record<string, unknown> = {};
  for (const host of ["mirrored.example", "path.example", "any.example", open.host])
    told[host.includes("127") ? "itself" : host] = await pull(`${host}/team/app:1`);
  // The second entry for the host stands over the first.
  told["auths"] = await pull("locked.example/team/secret:1");
  told["configs"] = await pull(`${locked.host.replace("127.0.0.1", "localhost")}/team/secret:1`);
  const auth = { username: "kubelet", password: "wrong" };
  told["the kubelet's own"] = (await errorOf(pull("locked.example/team/secret:1", { auth }))).code;
  return { ...told, ...(await deprecations(cri)) };
}

/** What a daemon says of keys that newer versions drop: to the kubelet, to clients, and to `ctr`. */
async function deprecations({ daemon, runtime, client }: CriDaemon): Promise<Record<string, unknown>> {
  // When they go differs between versions of the reference, as do blanks.
  const words = (text: string): string =>
    text.replaceAll(/containerd v2\.\d/g, "containerd v2.x").replaceAll(/\. ?(?=Use)/g, ". ");
  const { status } = await runtime.status({});
  const condition = status?.conditions.find(({ type }) => type === "ContainerdHasNoDeprecationWarnings");
  const server = await client(Introspection).server({});
  const known = server.deprecations.map(({ id, message, lastOccurrence }) => ({
    ...{ id, message: words(message) },
    ago: Math.abs(Date.now() / 1000 - Number(lastOccurrence?.seconds)) < 300,
  }));
  const { stdout } = await ctr("2.1", daemon, "deprecations", "list", "--format", "json");
  const listed = JSON.parse(stdout) as { id: string }[];
  return {
    condition: [condition?.status, condition?.reason, JSON.parse(words(condition?.message ?? ""))],
    deprecations: known.sort((a, b) => (a.id < b.id ? -1 : 1)),
    ctr: listed.map(({ id }) => id).sort(),
  };
}

test("mirrors, configs and auths of the registry table choose hosts and prove who pulls", async () => {
  const kinds = daemonKinds("containerd-2.1", "bunkerd");
  const [reference, ...others] = await Promise.all(kinds.map(pulled));
  expect(Object.keys(reference as object)).toHaveLength(10);
  expect(reference).toMatchObject({
    ctr: { length: 3 },
    condition: [false, "ContainerdHasDeprecationWarnings", {}],
  });
  for (const other of others) expect(other).toEqual(reference);
});

const DECODERS = { "+gzip": "tar.gzip", "": "tar" };
const PLAIN = "application/vnd.oci.image.layer.v1.tar";

/** In ctd-decoder's place: base64 for the cipher; what it is told stands in `<folder>/<kind>`. */
function decoders(kind: string): string {
  const notes = join(folder, `payloads-${kind}`);
  mkdirSync(notes, { recursive: true });
  const path = join(folder, `decoder-${kind}`);
  writeFileSync(path, `#!/bin/sh\nset -e\ncat <&3 > ${notes}/$STREAM_PROCESSOR_MEDIATYPE\nexec base64 -d\n`);
  chmodSync(path, 0o755);
  mkdirSync(join(notes, dirname(PLAIN)), { recursive: true });
  return Object.entries(DECODERS)
    .map(([suffix, id]) =>
      [
        `[stream_processors."io.containerd.ocicrypt.decoder.v1.${id}"]`,
        `accepts = ["${PLAIN}${suffix}+encrypted"]\nreturns = "${PLAIN}${suffix}"\npath = "${path}"`,
      ].join("\n"),
    )
    .join("\n");
}

const ENCRYPTED = Object.keys(DECODERS).map((suffix) => `${PLAIN}${suffix}+encrypted`);

/** Pulls the encrypted image by the node's keys, and without any. */
async function decrypted(kind: DaemonKind): Promise<unknown> {
  const pull = async (keyModel: string) => {
    // containerd decrypts in the older of its two ways to pull alone, which this number of downloads makes it choose.
    const keys = `max_concurrent_downloads = 4\n${CRI}.image_decryption]\nkey_model = "${keyModel}"`;
    const config = `${CRI}]\n${keys}\n${decoders(kind)}`;
    await using daemon = await startDaemon(kind, { config, disabledPlugins: DISABLED });
    await using connection = connectGrpc(daemon.socket);
    const image = `${open.host}/team/encrypted:1`;
    return await connection.client(ImageService).pullImage({ image: { image } });
  };
  const { imageRef } = await pull("node");
  const payloads = ENCRYPTED.map((type) => {
    const { typeUrl, value } = fromBinary(AnySchema, readFileSync(join(folder, `payloads-${kind}`, type)));
    return { typeUrl, text: Buffer.from(value).toString() };
  });
  return { imageRef, payloads, without: (await errorOf(pull(""))).code };
}

test("layers are decrypted by ctd-decoder's stand-in, which is told of each as imgcrypt tells it", async () => {
  const types = [...ENCRYPTED];
  const image = buildImage(
    "encrypted",
    ["one", "two"].map((data) => tar([{ name: data, data }])),
    (layer) => {
      const mediaType = types.shift() ?? "";
      const blob = Buffer.from((mediaType.includes("gzip") ? gzipSync(layer) : layer).toString("base64"));
      // What stands in for the wrapped key has letters that Go's JSON escapes.
      return { blob, mediaType, annotations: { "org.opencontainers.image.enc.keys.jwe": "a<b>&c", a: "b" } };
    },
  );
  await pushImage(open, "team/encrypted", "1", image);
  const kinds = daemonKinds("containerd-2.1", "bunkerd");
  const [reference, ...others] = await Promise.all(kinds.map(decrypted));
  expect(reference).toMatchObject({
    payloads: [
      { typeUrl: "io.containerd.ocicrypt.v1.Payload", text: expect.stringContaining('"DecryptConfig"') },
      { text: expect.stringContaining("enc.keys.jwe") },
    ],
    without: Code.Unknown,
  });
  for (const other of others) expect(other).toEqual(reference);
});

/** What CRI's plugins say of themselves, and what the kubelet hears. */
async function faults(kind: DaemonKind, config: string): Promise<unknown> {
  await using daemon = await startDaemon(kind, {
    config,
    disabledPlugins: DISABLED,
  });
  await using connection = connectGrpc(daemon.socket);
  const { plugins } = await connection.client(Introspection).plugins({});
  return {
    faults: plugins.flatMap(({ type, id, initErr }) =>
      type === "io.containerd.cri.v1" && initErr !== undefined ? [`${id}: ${initErr.message}`] : [],
    ),
    kubelet: await errorOf(connection.client(RuntimeService).version({})),
  };
}

const FAULTS: Readonly<Record<string, string>> = {
  "default_runtime_name is of no handler": `${CRI}.containerd]\ndefault_runtime_name = "none"`,
  "all devices need no host devices": `${CRI}.containerd.runtimes.runc]\nprivileged_without_host_devices_all_devices_allowed = true`,
  "mirrors stand beside a config_path": `${CRI}.registry]\nconfig_path = "/etc/certs.d"\n${CRI}.registry.mirrors."a"]\nendpoint = ["http://b"]`,
};
const isCgroup2 = await Bun.file("/sys/fs/cgroup/cgroup.controllers").exists();
if (isCgroup2) process.stdout.write("skipped: cgroup_writable on cgroup v1: this machine has v2\n");
else
  Object.assign(FAULTS, {
    "cgroup_writable is for cgroup v2": `${CRI}.containerd.runtimes.runc]\ncgroup_writable = true`,
  });

describe("CRI does not run, and says why", () => {
  test.each(Object.entries(FAULTS))("%s", async (_, config) => {
    const kinds = daemonKinds("containerd-2.1", "bunkerd");
    const [reference, ...others] = await Promise.all(kinds.map((kind) => faults(kind, config)));
    expect(reference).toMatchObject({ faults: [expect.stringContaining("invalid ")] });
    for (const other of others) expect(other).toEqual(reference);
  });

  test("config check tells it beforehand", async () => {
    const path = join(folder, "config.toml");
    writeFileSync(path, `version = 2\n${FAULTS["default_runtime_name is of no handler"]}`);
    const { code, stdout } = await run([...bunkerdCommand(), "--config", path, "config", "check"]);
    expect(stdout).toContain(
      'error: plugins."io.containerd.cri.v1.runtime": invalid plugin config: no corresponding runtime',
    );
    expect(code).toBe(1);
  });
});
