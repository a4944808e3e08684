/** The pull that the daemon's own parts call, on real stores and a real registry. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { openDiffer } from "../../src/diff/differ.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { isError } from "../../src/model/errors.ts";
import { hostPlatform, onlyPlatform } from "../../src/model/platforms.ts";
import type { TransferProgress } from "../../src/model/transfer.ts";
import { createResolver } from "../../src/registry/resolver.ts";
import { openNative } from "../../src/snapshots/native.ts";
import { LocalTransfers, type PullRequest } from "../../src/transfer/local.ts";
import { until } from "../support/containers.ts";
import { type TestMetadata, temporaryMetadata } from "../support/metadata.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { RegistryProxy } from "../support/registry-proxy.ts";
import { type BuiltImage, buildImage, tar } from "../support/tar.ts";

const folder = temporaryFolder();
const scope = { namespace: "k8s.io" };
let registry: Registry;
let proxy: RegistryProxy;
let image: BuiltImage;
let metadata: TestMetadata;
let transfers: LocalTransfers;

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  const layers = ["one", "two"].map((name) => tar([{ name, data: name.repeat(1000) }]));
  image = buildImage("box", layers, (layer) => ({
    blob: gzipSync(layer),
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  }));
  await pushImage(registry, "library/box", "1", image);
});
beforeEach(async () => {
  proxy = new RegistryProxy(registry);
  const root = join(folder, `native-${Math.random()}`);
  mkdirSync(root);
  const clock = systemClock();
  const snapshotters = new Map([["native", openNative({ root, clock, logger: silentLogger })]]);
  metadata = await temporaryMetadata({ snapshotters });
  const { content, images, leases, snapshots } = metadata;
  const native = snapshots.get("native");
  if (native === undefined) throw new Error("no native snapshotter");
  const target = {
    platform: onlyPlatform(hostPlatform()),
    snapshots: native,
    applier: openDiffer({ content, inUserNamespace: false }),
    syncFs: false,
    rebases: false,
    configType: "",
    layerTypes: [],
  };
  transfers = new LocalTransfers(
    {
      maxConcurrentDownloads: 3,
      maxConcurrentUploads: 3,
      maxConcurrentUnpacks: 1,
      layerFetchBufferBytes: 0,
      hostsDirectory: "",
    },
    {
      ...{ content, images, leases, clock },
      targets: [target],
      verifiers: [],
      createResolver: async (options) => createResolver(options),
      logger: silentLogger,
    },
  );
});
afterEach(async () => {
  await proxy.stop();
  for (const store of metadata.snapshots.values()) await store.close();
  await metadata.close();
});
afterAll(async () => {
  await registry.stop();
  removeFolder(folder);
});

const request = (more: Partial<PullRequest> = {}): PullRequest => ({
  resolver: { defaultScheme: "http" },
  selection: { platforms: onlyPlatform(hostPlatform()), manifestLimit: 1 },
  unpack: { snapshotter: "native" },
  ...more,
});
const name = (): string => `${proxy.host}/library/box:1`;

test("answers the record; the snapshots are there, no lease is left, progress is told", async () => {
  const events: TransferProgress[] = [];
  const onProgress = (progress: TransferProgress) => void events.push(progress);
  const labels = { "io.cri-containerd.image": "managed" };
  const pulled = await transfers.pullImage(scope, name(), request({ labels, onProgress }));
  expect(pulled).toMatchObject({ name: name(), labels, target: { digest: image.manifest.digest } });
  expect(await metadata.images.get(scope, name())).toMatchObject({ labels });
  for (const chainId of image.chainIds) await metadata.snapshots.get("native")?.stat(scope, chainId);
  expect(await metadata.leases.list(scope)).toEqual([]);
  const done = events.filter(({ event }) => event === "complete").map(({ descriptor }) => descriptor?.digest);
  expect(done.sort()).toEqual([...image.blobs.keys()].sort());
});

test("layers that are not to be kept are not referred to", async () => {
  await transfers.pullImage(scope, name(), request({ discardsLayers: true }));
  const { labels } = await metadata.content.info(scope, image.manifest.digest);
  expect(Object.keys(labels).filter((key) => key.includes("gc.ref"))).toEqual([
    "containerd.io/gc.ref.content.config",
  ]);
});

test("a registry that sends nothing more is given up, and the next pull goes on", async () => {
  const digest = image.layers[1]?.digest ?? "";
  const release = proxy.hold(digest, 10);
  const stalled = transfers.pullImage(scope, name(), request({ stallTimeoutMs: 200 }));
  const error = await stalled.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(isError(error, "DeadlineExceeded") && error.message).toContain("no progress in 200 ms");
  release();
  expect(await metadata.leases.list(scope)).toEqual([]);
  await transfers.pullImage(scope, name(), request({ stallTimeoutMs: 5000 }));
  expect(proxy.blobRequests(digest).map(({ range }) => range)).toEqual([
    null,
    expect.stringMatching(/^bytes=10-/),
  ]);
});

test("under the caller's lease", async () => {
  const lease = await metadata.leases.create(scope, { id: "mine" });
  await transfers.pullImage({ ...scope, lease: lease.id }, name(), request());
  const resources = await metadata.leases.listResources(scope, "mine");
  expect(resources.filter(({ type }) => type === "content").map(({ id }) => id)).toEqual(
    [...image.blobs.keys()].sort(),
  );
  expect(resources.filter(({ type }) => type === "snapshots/native").map(({ id }) => id)).toEqual(
    expect.arrayContaining([...image.chainIds]),
  );
});

test("a caller that goes is told Canceled", async () => {
  const release = proxy.hold(image.layers[0]?.digest ?? "", 10);
  const controller = new AbortController();
  const pulling = transfers.pullImage({ ...scope, signal: controller.signal }, name(), request());
  await until("the layer is asked for", () => proxy.underway > 0);
  controller.abort();
  const error = await pulling.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  release();
  expect(isError(error, "Canceled")).toBe(true);
  expect(await metadata.leases.list(scope)).toEqual([]);
});
