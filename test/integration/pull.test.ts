/** How the daemon pulls: what it asks a registry for, and when; what is left when it, its client or the registry fails. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Transfer } from "#gen/containerd/services/transfer/v1/transfer_pb.ts";
import { ImageStoreSchema } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import { OCIRegistrySchema } from "#gen/containerd/types/transfer/registry_pb.ts";
import { ctr } from "../support/commands.ts";
import { until } from "../support/containers.ts";
import { type Daemon, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { RegistryProxy } from "../support/registry-proxy.ts";
import { type BuiltImage, buildImage, tar } from "../support/tar.ts";

const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYERS = 6;
const options = inNamespace("default");
const folder = temporaryFolder();
let registry: Registry;
let proxy: RegistryProxy;
let image: BuiltImage;

function layerOf(number: number): Buffer {
  const data = Buffer.from(
    Uint32Array.from({ length: 400_000 }, (_, at) => Math.imul(at, 2_654_435_761 + number)).buffer,
  );
  return tar([{ name: `file${number}`, data }]);
}

const digestAt = (at: number): string => image.layers[at]?.digest ?? "";
const sizeAt = (at: number): number => image.layers[at]?.blob.length ?? 0;
const name = (): string => `${proxy.host}/library/box:1`;
const pull = (daemon: Daemon, ...flags: readonly string[]) =>
  ctr("2.1", daemon, "images", "pull", "--plain-http", ...flags, name());

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  image = buildImage(
    "box",
    Array.from({ length: LAYERS }, (_, at) => layerOf(at)),
    (layer) => ({
      blob: gzipSync(layer, { level: 1 }),
      mediaType: LAYER,
    }),
  );
  await pushImage(registry, "library/box", "1", image);
});
beforeEach(() => {
  proxy = new RegistryProxy(registry);
});
afterEach(() => proxy.stop());
afterAll(async () => {
  await registry.stop();
  removeFolder(folder);
});

function pack<S extends DescMessage>(schema: S, message: MessageInitShape<S>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, create(schema, message)) });
}

async function snapshotNames(daemon: Daemon): Promise<string[]> {
  await using connection = connectGrpc(daemon.socket);
  const names: string[] = [];
  for await (const { info } of connection.client(Snapshots).list({ snapshotter: "overlayfs" }, options))
    names.push(...info.map((one) => one.name));
  return names;
}

/** Those of layers, not those that are being filled. */
function wholeOf(names: readonly string[]): string[] {
  return names.filter((one) => one.startsWith("sha256:"));
}

async function leasesOf(daemon: Daemon): Promise<number> {
  await using connection = connectGrpc(daemon.socket);
  return (await connection.client(Leases).list({}, options)).leases.length;
}

async function ingestsOf(daemon: Daemon): Promise<Record<string, bigint>> {
  await using connection = connectGrpc(daemon.socket);
  const { statuses } = await connection.client(Content).listStatuses({}, options);
  return Object.fromEntries(statuses.map(({ ref, offset }) => [ref, offset]));
}

test("a layer that was half there when the daemon was killed is gone on with", async () => {
  let daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  const ref = `layer-${digestAt(1)}`;
  const release = proxy.hold(digestAt(1), sizeAt(1) >> 1);
  const first = pull(daemon);
  await until("some of a layer", async () => ((await ingestsOf(daemon))[ref] ?? 0n) > 0n);
  const offset = (await ingestsOf(daemon))[ref];
  await daemon.kill();
  await first;
  release();
  daemon = await startDaemon("bunkerd", { folder: daemon.folder, config: WITHOUT_COLLECTION });
  await using again = daemon;
  expect(await pull(again)).toMatchObject({ code: 0, stderr: "" });
  expect(proxy.blobRequests(digestAt(1)).map(({ range }) => range?.startsWith(`bytes=${offset}-`))).toEqual([
    undefined,
    true,
  ]);
  expect(await ingestsOf(again)).toEqual({});
  expect(wholeOf(await snapshotNames(again))).toHaveLength(LAYERS);
});

test("a client that goes ends its pull: no request, no lease, no snapshot that is not whole", async () => {
  await using daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  const release = proxy.hold(digestAt(2), 1000);
  const connection = connectGrpc(daemon.socket);
  const source = pack(OCIRegistrySchema, { reference: name(), resolver: { defaultScheme: "http" } });
  const destination = pack(ImageStoreSchema, { name: name(), unpacks: [{}] });
  const call = errorOf(connection.client(Transfer).transfer({ source, destination }, options));
  await until("two layers", async () => {
    return wholeOf(await snapshotNames(daemon)).length === 2;
  });
  expect(await leasesOf(daemon)).toBe(1);
  connection.close();
  await call;
  await until("the request has ended", () => proxy.gone === 1);
  await until("the lease is gone", async () => (await leasesOf(daemon)) === 0);
  await until("two snapshots", async () => (await snapshotNames(daemon)).length === 2);
  release();
  expect((await ctr("2.1", daemon, "images", "ls", "-q")).stdout).toBe("");
  expect(await pull(daemon)).toMatchObject({ code: 0, stderr: "" });
});

test("layers are applied while later ones come; no more requests at a time than are allowed", async () => {
  await using daemon = await startDaemon("bunkerd");
  const release = proxy.hold(digestAt(LAYERS - 1), 1000);
  const pulling = pull(daemon);
  await until("all layers but the last", async () => {
    return wholeOf(await snapshotNames(daemon)).length === LAYERS - 1;
  });
  release();
  expect(await pulling).toMatchObject({ code: 0, stderr: "" });
  expect(proxy.mostUnderway).toBeGreaterThan(1);
  expect(proxy.mostUnderway).toBeLessThanOrEqual(3);
});

test("what several want is fetched and applied once", async () => {
  await using daemon = await startDaemon("bunkerd");
  const release = proxy.hold(digestAt(0), 1000);
  const pulls = [pull(daemon), pull(daemon), pull(daemon)];
  await until("all three", async () => (await leasesOf(daemon)) === 3);
  release();
  for (const { code } of await Promise.all(pulls)) expect(code).toBe(0);
  for (let at = 0; at < LAYERS; at++) expect(proxy.blobRequests(digestAt(at))).toHaveLength(1);
  expect(await snapshotNames(daemon)).toHaveLength(LAYERS);
});

test("a layer in pieces comes by several requests", async () => {
  const config = '[plugins."io.containerd.transfer.v1.local"]\nconcurrent_layer_fetch_buffer = 100000';
  await using daemon = await startDaemon("bunkerd", { config });
  expect(await pull(daemon)).toMatchObject({ code: 0, stderr: "" });
  expect(proxy.blobRequests(digestAt(0)).length).toBeGreaterThan(2);
  expect(proxy.mostUnderway).toBeLessThanOrEqual(3);
});

test("something else than was promised is refused, and not kept", async () => {
  await using daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  const wrong = Buffer.from(image.layers[1]?.blob ?? "");
  wrong[500] = (wrong[500] ?? 0) ^ 1;
  proxy.change(digestAt(1), wrong);
  const { code, stderr } = await pull(daemon);
  expect(code).toBe(1);
  expect(stderr).toContain(digestAt(1));
  expect(stderr).toContain(`failed commit on ref "layer-${digestAt(1)}" from GET http://${proxy.host}/v2/`);
  expect(Object.keys(await ingestsOf(daemon))).not.toContain(`layer-${digestAt(1)}`);
  proxy.change(digestAt(1), undefined);
  expect(await pull(daemon)).toMatchObject({ code: 0, stderr: "" });
});

test("the client is asked for credentials", async () => {
  await using daemon = await startDaemon("bunkerd");
  proxy.password = "somebody:secret";
  const refused = await pull(daemon);
  expect({ code: refused.code, secret: refused.stderr.includes("secret") }).toEqual({
    code: 1,
    secret: false,
  });
  expect((await pull(daemon, "--user", "somebody:wrong")).code).toBe(1);
  expect(await pull(daemon, "--user", "somebody:secret")).toMatchObject({ code: 0, stderr: "" });
});

test("an image that a program is against is not pulled, in containerd's words", async () => {
  const programs = join(folder, "verifiers");
  mkdirSync(programs, { recursive: true });
  writeFileSync(join(programs, "policy"), "#!/bin/sh\ncat > /dev/null; echo not signed; exit 1\n", {
    mode: 0o755,
  });
  const config = `[plugins."io.containerd.image-verifier.v1.bindir"]\nbin_dir = ${JSON.stringify(programs)}`;
  const answers: string[] = [];
  for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
    await using daemon = await startDaemon(kind, { config });
    const { code, stderr } = await pull(daemon);
    expect(code).toBe(1);
    answers.push(stderr);
    expect((await ctr("2.1", daemon, "content", "ls", "-q")).stdout).toBe("");
  }
  for (const answer of answers)
    expect(answer).toContain("for reason: verifier policy rejected image (exit code 1): not signed");
  for (const answer of answers.slice(1)) expect(answer).toBe(answers[0] ?? "");
});
