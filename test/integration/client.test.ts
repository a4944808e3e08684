/** The TypeScript client against bunkerd and against real containerd. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Client, unpackSpec, withImageName, withLabels, withSpec } from "bunkerd/client";
import { ContainerCreateSchema, ContainerDeleteSchema } from "#gen/containerd/events/container_pb.ts";
import { NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { fail } from "../../src/model/errors.ts";
import { containerOf, containerStoreSuite, failureOf } from "../support/container-store-suite.ts";
import { type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { run } from "../support/processes.ts";

const scope = { namespace: "client-test" };

async function clear(client: Client, namespace: string): Promise<void> {
  const containers = client.containers();
  for (const { id } of await containers.list({ namespace })) await containers.delete({ namespace }, id);
}

for (const kind of daemonKinds("bunkerd", "containerd-2.1")) {
  describe(`on ${kind}`, () => {
    let daemon: Daemon;
    let client: Client;
    beforeAll(async () => {
      daemon = await startDaemon(kind);
      client = await Client.connect(`unix://${daemon.socket}`);
    }, 90_000);
    afterAll(async () => {
      client.close();
      await daemon.stop();
    });

    containerStoreSuite("the remote container store", async () => {
      for (const namespace of ["suite", "elsewhere"]) await clear(client, namespace);
      return { store: client.containers(), close: async () => undefined };
    });
    describe("namespaces, leases and sandboxes", () => storeCases(() => client));
    describe("events", () => eventCases(() => client));
    describe("newContainer", () => newContainerCases(() => client));
    test("the sample", () => runSample(daemon));
    test("10,000 containers of 4 KiB are listed", () => listMany(client), 120_000);

    test("an upload and a download that are larger than any window", () => passMuch(client), 60_000);

    test("version and introspection", async () => {
      expect((await client.version()).version).not.toBe("");
      const plugins = await client.introspection().plugins(["type==io.containerd.grpc.v1,id==containers"]);
      expect(plugins.map(({ id, initErr }) => [id, initErr])).toEqual([["containers", undefined]]);
      const server = await client.introspection().server();
      expect(server.uuid).toMatch(/^[0-9a-f-]{36}$/);
      expect(server.pid).toBe(BigInt(daemon.pid));
      const missing = await failureOf(client.introspection().pluginInfo("a", "b"));
      expect([missing.code, missing.message]).toEqual(["NotFound", "plugin a.b not found: not found"]);
    });
  });
}

/** grpc-go widens the window of a stream while that is open. */
async function passMuch(client: Client): Promise<void> {
  const data = Buffer.alloc(64 << 20);
  for (let at = 0; at < data.length; at += 4096) data.writeUInt32LE(at, at);
  const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
  const content = client.content();
  const writer = await content.writer(scope, { ref: "much", totalBytes: BigInt(data.length) });
  await writer.write(data);
  await writer.commit({ sizeBytes: BigInt(data.length), expected: digest });
  const reader = await content.open(scope, digest);
  const read = Buffer.alloc(data.length);
  expect(await reader.read(read, 0)).toBe(data.length);
  expect(read.equals(data)).toBe(true);
  await reader.close();
  await content.delete(scope, digest);
}

function storeCases(client: () => Client): void {
  test("namespaces are created, labelled, listed and deleted", async () => {
    const namespaces = client().namespaces();
    await namespaces.create(create(NamespaceSchema, { name: "ns-a", labels: { a: "1" } }));
    const again = await failureOf(namespaces.create(create(NamespaceSchema, { name: "ns-a" })));
    expect([again.code, again.message]).toEqual(["AlreadyExists", 'namespace "ns-a": already exists']);
    const changed = create(NamespaceSchema, { name: "ns-a", labels: { b: "2" } });
    expect((await namespaces.update(changed, ["labels.b"])).labels).toEqual({ a: "1", b: "2" });
    expect((await namespaces.update(changed)).labels).toEqual({ b: "2" });
    expect((await namespaces.list()).map(({ name }) => name)).toContain("ns-a");
    const refused = await failureOf(namespaces.update(changed, ["name"]));
    expect([refused.code, refused.message]).toEqual(["InvalidArgument", 'cannot update "name" field']);
    await namespaces.delete("ns-a");
    const gone = await failureOf(namespaces.delete("ns-a"));
    expect([gone.code, gone.message]).toEqual(["NotFound", 'namespace "ns-a": not found']);
  });

  test("leases hold resources", async () => {
    const leases = client().leases();
    const { id } = await leases.create(scope, { labels: { a: "1" } });
    expect(id).not.toBe("");
    const resource = {
      $typeName: "containerd.services.leases.v1.Resource",
      id: "s",
      type: "snapshots/overlayfs",
    } as const;
    await leases.addResource(scope, id, resource);
    expect(await leases.listResources(scope, id)).toEqual([resource]);
    await leases.deleteResource(scope, id, resource);
    expect(await leases.listResources(scope, id)).toEqual([]);
    expect((await leases.list(scope, [`id==${JSON.stringify(id)}`])).map(({ labels }) => labels)).toEqual([
      { a: "1" },
    ]);
    await leases.delete(scope, id, { sync: true });
    expect((await failureOf(leases.delete(scope, id))).code).toBe("NotFound");
  });

  test("sandboxes are stored", async () => {
    const sandboxes = client().sandboxes();
    const pod = create(SandboxSchema, {
      sandboxId: "pod",
      runtime: { name: "io.containerd.runc.v2" },
      labels: { a: "1" },
    });
    expect((await sandboxes.create(scope, pod)).createdAt).toBeDefined();
    expect((await sandboxes.update(scope, { ...pod, labels: { b: "2" } }, ["labels"])).labels).toEqual({
      b: "2",
    });
    expect((await sandboxes.get(scope, "pod")).labels).toEqual({ b: "2" });
    expect((await sandboxes.list(scope)).map(({ sandboxId }) => sandboxId)).toEqual(["pod"]);
    await sandboxes.delete(scope, "pod");
    expect((await failureOf(sandboxes.get(scope, "pod"))).code).toBe("NotFound");
  });
}

function eventCases(client: () => Client): void {
  test("what is created, published and forwarded arrives, filtered, until the signal aborts", async () => {
    const end = new AbortController();
    const filters = ["namespace==client-events"];
    const events = client().events().subscribe(filters, end.signal);
    await subscribed(client(), events);
    const here = { namespace: "client-events" };
    await client().containers().create(here, containerOf("seen"));
    await client().containers().delete({ namespace: "client-events" }, "seen");
    const event = create(ContainerDeleteSchema, { id: "told" });
    await client().events().publish(here, "/test/published", ContainerDeleteSchema, event);
    await client().events().publish({ namespace: "other" }, "/test/other", ContainerDeleteSchema, event);
    const envelope = create(EnvelopeSchema, {
      namespace: here.namespace,
      topic: "/test/forwarded",
      timestamp: { seconds: 7n, nanos: 8 },
    });
    envelope.event = create(AnySchema, { typeUrl: "x" });
    await client().events().forward(envelope);
    const topics: string[] = [];
    for await (const { topic, timestamp } of events) {
      topics.push(topic);
      if (topic !== "/test/forwarded") continue;
      expect(timestamp).toMatchObject({ seconds: 7n, nanos: 8 });
      end.abort();
    }
    expect(topics).toEqual([
      "/containers/create",
      "/containers/delete",
      "/test/published",
      "/test/forwarded",
    ]);
  });

  test("a malformed topic is refused in containerd's words", async () => {
    const event = create(ContainerCreateSchema, { id: "x" });
    const error = await failureOf(client().events().publish(scope, "nope", ContainerCreateSchema, event));
    expect([error.code, error.message]).toEqual([
      "InvalidArgument",
      `envelope topic "nope": must start with '/': invalid argument`,
    ]);
  });

  test("a filter's mistake ends the subscription with its place", async () => {
    const error = await failureOf(client().events().subscribe(["id="]).next());
    expect(error.message).toBe(
      'subscription error: failed parsing subscription filters: filters: parse error: [id >|=|< ]: unsupported operator "=": invalid argument',
    );
  });
}

/** Publishes until the subscription delivers, since containerd does not tell when it has begun; then drops what came twice. */
async function subscribed(client: Client, events: AsyncIterator<{ topic: string }>): Promise<void> {
  const here = { namespace: "client-events" };
  const event = create(ContainerDeleteSchema, { id: "probe" });
  let arrived = false;
  const first = events.next().then(() => {
    arrived = true;
  });
  let probes = 0;
  while (!arrived) {
    await client.events().publish(here, "/test/probe", ContainerDeleteSchema, event);
    probes++;
  }
  await first;
  await client.events().publish(here, "/test/begin", ContainerDeleteSchema, event);
  for (let topic = ""; topic !== "/test/begin" && probes >= 0; probes--) {
    topic = (await events.next()).value?.topic ?? "";
  }
}

function newContainerCases(client: () => Client): void {
  const rlimits = [{ type: "RLIMIT_NOFILE", hard: 18_446_744_073_709_551_615n, soft: 1024 }];

  test("creates under a lease that is gone afterwards; the spec's integers survive", async () => {
    let lease: string | undefined;
    const container = await client().newContainer(
      scope,
      "made",
      withImageName("docker.io/library/busybox:latest"),
      withLabels({ tier: "front" }),
      withSpec({ ociVersion: "1.2.0", process: { rlimits } }),
      async (context) => {
        lease = context.scope.lease;
        const [held] = await context.stores.leases.list(scope);
        const expires = Date.parse(held?.labels["containerd.io/gc.expire"] ?? "");
        expect(expires - Date.now()).toBeGreaterThan(23 * 3_600_000);
      },
    );
    expect(lease).toBeDefined();
    expect(await client().leases().list(scope)).toEqual([]);
    const stored = await client().containers().get(scope, "made");
    expect(stored).toEqual(container);
    expect(stored.runtime?.name).toBe("io.containerd.runc.v2");
    expect(stored.spec && unpackSpec(stored.spec)).toEqual({ ociVersion: "1.2.0", process: { rlimits } });
    await client().containers().delete(scope, "made");
  });

  test("releases the lease when an option or the create fails", async () => {
    // Not `expect().rejects`: it turns Bun's event loop from inside itself, which breaks streams of node:http2.
    const option = fail("Aborted", "option");
    const broken = client().newContainer(scope, "broken", () => {
      throw option;
    });
    expect(await failureOf(broken)).toBe(option);
    const error = await failureOf(client().newContainer(scope, "../x"));
    expect(error.code).toBe("InvalidArgument");
    expect(await client().leases().list(scope)).toEqual([]);
    expect(await client().containers().list(scope)).toEqual([]);
  });
}

async function runSample(daemon: Daemon): Promise<void> {
  const sample = join(import.meta.dir, "../../docs/sample/containers.ts");
  const result = await run([process.execPath, sample, daemon.socket, "sample"]);
  expect(result.stderr).toBe("");
  expect(result.stdout.trim().split("\n")).toEqual([
    "created sample-web from docker.io/library/nginx:latest",
    "sample-web is labelled team=docs",
    "with team=docs: sample-web",
    "deleted sample-web",
    'gone: container "sample-web" in namespace "sample": not found',
  ]);
  expect(result.code).toBe(0);
}

async function listMany(client: Client): Promise<void> {
  const many = { namespace: "many" };
  const count = 10_000;
  const containers = client.containers();
  const spec = create(AnySchema, { typeUrl: "types.containerd.io/x", value: new Uint8Array(4096) });
  for (let made = 0; made < count; made += 100) {
    await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        containers.create(many, containerOf(`c${made + index}`, { spec })),
      ),
    );
  }
  const listed = await containers.list(many);
  expect(new Set(listed.map(({ id }) => id)).size).toBe(count);
  expect(listed.every((container) => container.spec?.value.length === 4096)).toBe(true);
}
