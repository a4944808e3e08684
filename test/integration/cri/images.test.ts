/** ImageService by a real registry: what ours answers is what containerd's answers. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { toJson } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ImageSchema, ImageService, NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import { ctr } from "../../support/commands.ts";
import { until } from "../../support/containers.ts";
import { BOX_IMAGE, PAUSE_IMAGE, podConfig, prepareCri, startCri } from "../../support/cri.ts";
import type { DaemonKind } from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { type Connection, connectGrpc, errorOf, inNamespace } from "../../support/grpc.ts";
import { freePort } from "../../support/ports.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../../support/registry.ts";
import { RegistryProxy } from "../../support/registry-proxy.ts";
import { buildImage, tar } from "../../support/tar.ts";

const folder = temporaryFolder();
const HOST_NETWORK = { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } };
const HOST = "registry.example";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
let open: Registry;
let locked: Registry;

const built = (content: string, config: object = {}) =>
  buildImage(
    "built",
    [tar([{ name: "file", data: content }]), tar([{ name: "other", data: "of a second layer" }])],
    (layer) => ({ blob: gzipSync(layer), mediaType: LAYER }),
    config,
  );

beforeAll(async () => {
  await prepareCri();
  await debianPackage("bookworm", "docker-registry");
  open = await startRegistry(join(folder, "open"), await freePort());
  await pushImage(open, "one", "1", built("one", { User: "1000:50" }));
  await pushImage(open, "two", "latest", built("two", { User: "www-data" }));
  for (const tag of ["a", "b"]) await pushImage(open, "same", tag, built("same"));
  await pushImage(open, "library/pause", "1", built("pause", { Cmd: ["/nothing"] }));
  const htpasswd = join(folder, "htpasswd");
  writeFileSync(htpasswd, `kubelet:${await Bun.password.hash("secret", { algorithm: "bcrypt", cost: 4 })}\n`);
  locked = await startRegistry(join(folder, "locked"), await freePort(), {
    auth: { htpasswd: { realm: "r", path: htpasswd } },
  });
});
afterAll(async () => {
  await open.stop();
  await locked.stop();
  removeFolder(folder);
});

function certsFolder(): string {
  const certs = join(folder, "certs.d");
  for (const [name, registry] of [
    [HOST, open],
    ["docker.io", open],
    ["locked.example", locked],
  ] as const) {
    mkdirSync(join(certs, name), { recursive: true });
    writeFileSync(join(certs, name, "hosts.toml"), `server = "http://${registry.host}"\n`);
  }
  return certs;
}

const config = () => ({
  config: `[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${certsFolder()}"`,
});

/** A kubelet's walk through ImageService; everything that it was told. */
async function walk(kind: DaemonKind): Promise<unknown> {
  await using cri = await startCri(kind, config());
  await using connection = connectGrpc(cri.daemon.socket);
  const images = connection.client(ImageService);
  const told: Record<string, unknown> = {};
  const list = async () =>
    (await images.listImages({})).images
      .map((image) => toJson(ImageSchema, image) as { id: string })
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  const pull = async (image: string, more: object = {}) =>
    (await images.pullImage({ image: { image }, ...more })).imageRef;
  const status = async (image: string) => {
    const { image: found } = await images.imageStatus({ image: { image } });
    return found === undefined ? "none" : toJson(ImageSchema, found);
  };

  told["by ten at once"] = await Promise.all(Array.from({ length: 10 }, () => pull(`${HOST}/one:1`)));
  told["pulled"] = await pull(`${HOST}/one:1`);
  told["again"] = await pull(`${HOST}/one:1`);
  told["without a tag"] = await pull(`${HOST}/two`);
  told["two tags"] = [await pull(`${HOST}/same:a`), await pull(`${HOST}/same:b`)];
  told["list"] = await list();
  const id = told["pulled"] as string;
  const { image: one } = await images.imageStatus({ image: { image: id } });
  const digest = one?.repoDigests[0]?.split("@")[1] ?? "";
  told["by digest, of a tag that is not"] = await pull(`${HOST}/one:9@${digest}`);
  told["by"] = {
    name: await status(`${HOST}/one:1`),
    id: await status(id),
    shortId: await status(id.slice(7, 19)),
    nothing: await status(`${HOST}/one:2`),
    digest: await status(`${HOST}/one@${digest}`),
    digestOfAnother: await status(`${HOST}/two@${digest}`),
    digestAlone: await status(digest),
    capitals: await status(id.toUpperCase()),
  };
  const records = await ctr("2.1", cri.daemon, "-n", "k8s.io", "images", "ls");
  told["records"] = records.stdout.replaceAll(/ +/g, " ").split("\n").sort();

  told["labels that keep"] = await kept(connection);

  told["no such tag"] = await errorOf(pull(`${HOST}/one:2`));
  told["no name"] = await errorOf(pull("UPPER:case"));
  const locked = "locked.example/private:1";
  told["a stranger"] = (await errorOf(pull(locked))).code;
  await pushPrivate();
  told["a user"] = await pull(locked, { auth: { username: "kubelet", password: "secret" } });
  const auth = Buffer.from("kubelet:secret").toString("base64");
  told["base64"] = await pull(locked, { auth: { auth } });
  const elsewhere = { username: "kubelet", password: "secret", serverAddress: "https://elsewhere.example" };
  told["for another server"] = (await errorOf(pull(locked, { auth: elsewhere }))).code;

  for (const name of [`${HOST}/same:a`, id.slice(7), locked, "nothing:here"])
    await images.removeImage({ image: { image: name } });
  told["removed"] = await list();
  await images.removeImage({ image: { image: `${HOST}/one@${digest}` } });
  told["removed by its digest"] = [await list(), await status(`${HOST}/one:1`)];
  const { imageFilesystems } = await images.imageFsInfo({});
  told["filesystems"] = imageFilesystems.map(({ fsId }) => fsId?.mountpoint.replace(cri.daemon.folder, ""));
  // containerd counts every ten seconds, and has not yet.
  if (kind === "bunkerd") expect(imageFilesystems[0]?.usedBytes?.value).toBeGreaterThan(0n);
  return told;
}

/** What collections go by, after one: labels of blobs, snapshots and images. */
async function kept(connection: Connection): Promise<unknown> {
  const scope = inNamespace("k8s.io");
  const leases = connection.client(Leases);
  await leases.create({ id: "collected" }, scope);
  await leases.delete({ id: "collected", sync: true }, scope);
  const blobs = await Array.fromAsync(connection.client(Content).list({}, scope));
  const request = { snapshotter: "overlayfs" };
  const snapshots = await Array.fromAsync(connection.client(Snapshots).list(request, scope));
  const { images } = await connection.client(Images).list({}, scope);
  const sorted = (rows: readonly (readonly [string, object])[]) =>
    [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    blobs: sorted(blobs.flatMap(({ info }) => info).map(({ digest, labels }) => [digest, labels])),
    snapshots: sorted(snapshots.flatMap(({ info }) => info).map(({ name, labels }) => [name, labels])),
    images: sorted(images.map(({ name, labels }) => [name, labels])),
  };
}

async function pushPrivate(): Promise<void> {
  const authorization = `Basic ${Buffer.from("kubelet:secret").toString("base64")}`;
  await pushImage(locked, "private", "1", built("private"), { authorization });
}

test("a kubelet hears what containerd would tell it", async () => {
  const [expected, ours] = [await walk("containerd-2.1"), await walk("bunkerd")];
  expect(JSON.stringify(expected)).toContain("containerd.io/gc.ref.snapshot.overlayfs");
  // Ours also names each URL that was tried, and the file that led there.
  const text = JSON.stringify(ours).replaceAll(/tried [^"\\]*?\): /g, "");
  expect(JSON.parse(text)).toEqual(expected as object);
});

test("what ctr does to images in k8s.io is seen; a pinned image says so", async () => {
  await using cri = await startCri("bunkerd", config());
  await using connection = connectGrpc(cri.daemon.socket);
  const images = connection.client(ImageService);
  const box = (await images.imageStatus({ image: { image: BOX_IMAGE } })).image;
  expect(box?.repoTags).toEqual([BOX_IMAGE]);
  const records = await ctr("2.1", cri.daemon, "-n", "k8s.io", "images", "ls", "-q");
  expect(records.stdout.split("\n")).toContain(box?.id ?? "none");
  await ctr("2.1", cri.daemon, "-n", "k8s.io", "images", "rm", BOX_IMAGE, box?.id ?? "none");
  await until(
    "the image goes",
    async () => (await images.imageStatus({ image: { image: BOX_IMAGE } })).image === undefined,
  );
  await ctr("2.1", cri.daemon, "-n", "k8s.io", "images", "tag", PAUSE_IMAGE, "docker.io/library/again:1");
  await until("the new name is seen", async () => {
    const { image } = await images.imageStatus({ image: { image: "again:1" } });
    return image?.pinned === true;
  });
});

test("a pause image is pulled when it is missing; a pull of which nothing comes is given up in its time", async () => {
  const proxy = new RegistryProxy(open);
  await using cri = await startCri("bunkerd", {
    plugin: 'image_pull_progress_timeout = "300ms"',
    ...config(),
  });
  await using connection = connectGrpc(cri.daemon.socket);
  const images = connection.client(ImageService);
  const image = { image: PAUSE_IMAGE };
  await images.removeImage({ image });
  expect((await images.imageStatus({ image })).image).toBeUndefined();
  // What comes from the registry has no program to run.
  const failed = await errorOf(cri.runtime.runPodSandbox({ config: podConfig(cri.daemon, HOST_NETWORK) }));
  expect(failed.message).toContain("failed to create containerd task");
  expect((await images.imageStatus({ image })).image?.repoTags).toEqual([PAUSE_IMAGE]);
  const stalls = built("stalls");
  await pushImage(open, "stalls", "1", stalls);
  const release = proxy.hold(stalls.layers[0]?.digest ?? "", 10);
  try {
    const stalled = await errorOf(images.pullImage({ image: { image: `${proxy.host}/stalls:1` } }));
    expect([stalled.code, stalled.message]).toEqual([
      Code.DeadlineExceeded,
      expect.stringContaining("no progress in 300 ms"),
    ]);
  } finally {
    release();
    await proxy.stop();
  }
});
