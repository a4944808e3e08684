import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  anyOf,
  containerOf,
  containerStoreSuite,
  failureOf,
} from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";

containerStoreSuite("metadata's container store", async () => {
  const metadata = await temporaryMetadata();
  return { store: metadata.containers, close: () => metadata.close() };
});

const scope = { namespace: "default" };

describe("events", () => {
  let metadata: TestMetadata;
  beforeEach(async () => {
    metadata = await temporaryMetadata();
  });
  afterEach(() => metadata.close());

  const messageOf = (fields: object) => expect.objectContaining(fields);

  test("tell of each change in the order of commits, with the reference's payloads", async () => {
    const runtime = {
      $typeName: "containerd.services.containers.v1.Container.Runtime" as const,
      name: "runc",
    };
    const web = containerOf("web", { image: "busybox", runtime: { ...runtime, options: anyOf("o") } });
    await Promise.all([
      metadata.containers.create(scope, web),
      metadata.containers.create({ namespace: "other" }, containerOf("api", { runtime })),
    ]);
    const labels = { a: "1", empty: "" };
    const changed = containerOf("web", { labels, snapshotKey: "ignored", image: "nginx" });
    await metadata.containers.update(scope, changed, ["labels", "image"]);
    await metadata.containers.delete(scope, "web");
    expect(metadata.events).toEqual([
      {
        namespace: "default",
        topic: "/containers/create",
        event: messageOf({
          id: "web",
          image: "busybox",
          runtime: messageOf({ name: "runc", options: anyOf("o") }),
        }),
      },
      {
        namespace: "other",
        topic: "/containers/create",
        event: messageOf({ id: "api", runtime: messageOf({ name: "runc" }) }),
      },
      {
        namespace: "default",
        topic: "/containers/update",
        event: messageOf({ id: "web", image: "nginx", labels: { a: "1" }, snapshotKey: "" }),
      },
      { namespace: "default", topic: "/containers/delete", event: messageOf({ id: "web" }) },
    ]);
  });

  test("do not come before the change is durable, nor for one that failed", async () => {
    const creation = metadata.containers.create(scope, containerOf("web"));
    expect(metadata.events).toEqual([]);
    await creation;
    expect(metadata.events.length).toBe(1);
    await failureOf(metadata.containers.create(scope, containerOf("web")));
    await failureOf(metadata.containers.update(scope, containerOf("web"), ["runtime"]));
    await failureOf(metadata.containers.delete(scope, "none"));
    expect(metadata.events.length).toBe(1);
  });
});

describe("what the reference answers with an unknown error", () => {
  let metadata: TestMetadata;
  beforeEach(async () => {
    metadata = await temporaryMetadata();
  });
  afterEach(() => metadata.close());

  test("a label without a key", async () => {
    const error = await failureOf(
      metadata.containers.create(scope, containerOf("web", { labels: { "": "v" } })),
    );
    const reason = 'failed to write container "web": failed to set label ""="v": key required';
    expect(`${error.code} ${error.message}`).toBe(`InvalidArgument ${reason}: invalid argument`);
    expect(await metadata.containers.list(scope)).toEqual([]);
    expect(await metadata.namespaces.list()).toEqual([]);
  });

  test("the namespace whose name the schema keeps for itself", async () => {
    const version = { namespace: "version" };
    const error = await failureOf(metadata.containers.create(version, containerOf("web")));
    const reason = 'namespace "version": incompatible value';
    expect(`${error.code} ${error.message}`).toBe(`InvalidArgument ${reason}: invalid argument`);
    expect(await metadata.containers.list(version)).toEqual([]);
  });

  test("an extension whose key is too long for the database", async () => {
    const extensions = { ["k".repeat(40_000)]: anyOf("x") };
    const error = await failureOf(metadata.containers.create(scope, containerOf("web", { extensions })));
    expect(error.code).toBe("InvalidArgument");
    expect(error.message.length).toBeLessThan(600);
  });
});

describe("hostile input", () => {
  let metadata: TestMetadata;
  beforeEach(async () => {
    metadata = await temporaryMetadata();
  });
  afterEach(() => metadata.close());

  test("an id of 2 MB is refused everywhere and never repeated", async () => {
    const id = "x".repeat(2_000_000);
    const { containers } = metadata;
    await containers.create(scope, containerOf("web"));
    const calls = [
      () => containers.create(scope, containerOf(id)),
      () => containers.get(scope, id),
      () => containers.update(scope, containerOf(id)),
      () => containers.update(scope, containerOf("web"), [id]),
      () => containers.delete(scope, id),
      () => containers.list({ namespace: id }),
      () => containers.list(scope, [`id=${id}`]),
    ];
    const codes: string[] = [];
    for (const call of calls) {
      const error = await failureOf(call());
      codes.push(error.code);
      expect(error.message.length).toBeLessThan(1_500);
    }
    const invalid = "InvalidArgument";
    expect(codes).toEqual([invalid, "NotFound", "NotFound", invalid, "NotFound", invalid, invalid]);
  });

  test("labels and extensions may bear the names of an object's own", async () => {
    const labels: Record<string, string> = JSON.parse('{"__proto__": "a", "toString": "b"}');
    const extensions = { ["__proto__"]: anyOf("c"), valueOf: anyOf("d") };
    await metadata.containers.create(scope, containerOf("web", { labels, extensions }));
    const container = await metadata.containers.get(scope, "web");
    expect(Object.entries(container.labels)).toEqual(Object.entries(labels));
    expect(Object.keys(container.extensions)).toEqual(["__proto__", "valueOf"]);
    const paths = ["labels.__proto__", "extensions.__proto__"];
    const updated = await metadata.containers.update(scope, containerOf("web"), paths);
    expect(Object.entries(updated.labels)).toEqual([["toString", "b"]]);
    expect((await metadata.containers.list(scope, ["labels.toString==b"])).length).toBe(1);
  });
});

test("a lease in the scope takes no container", async () => {
  const metadata = await temporaryMetadata();
  await metadata.leases.create(scope, { id: "lease" });
  await metadata.containers.create({ ...scope, lease: "lease" }, containerOf("web"));
  expect(await metadata.leases.listResources(scope, "lease")).toEqual([]);
  await metadata.close();
});

test("those with a label are found as a list finds them, other namespaces' and empty values left out", async () => {
  const metadata = await temporaryMetadata();
  const { containers } = metadata;
  expect(await containers.withLabel(scope, "restart")).toEqual([]);
  const revision = containers.revision();
  expect(containers.revision()).toBe(revision);
  for (const [id, labels] of Object.entries({
    b: { restart: "1" },
    a: { restart: "2", x: "y" },
    c: { x: "y" },
  }))
    await containers.create(scope, containerOf(id, { labels, image: id }));
  await containers.create(scope, containerOf("d", { labels: { restart: "" } }));
  await containers.create({ namespace: "other" }, containerOf("e", { labels: { restart: "1" } }));
  const found = await containers.withLabel(scope, "restart");
  expect(found.map(({ id }) => id)).toEqual(["a", "b"]);
  expect(containers.revision()).toBeGreaterThan(revision);
  expect(found).toEqual(await containers.list(scope, ["labels.restart"]));
  await containers.update(scope, containerOf("b", { labels: {} }), ["labels"]);
  expect((await containers.withLabel(scope, "restart")).map(({ id }) => id)).toEqual(["a"]);
  await metadata.close();
});

test("times are the clock's", async () => {
  let now = 1_000_000_000_000_000_007n;
  const metadata = await temporaryMetadata({ clock: { now: () => now } });
  await metadata.containers.create(scope, containerOf("web"));
  now += 5_000_000_000n;
  await metadata.containers.update(scope, containerOf("web"), ["image"]);
  const { createdAt, updatedAt } = await metadata.containers.get(scope, "web");
  expect(createdAt).toMatchObject({ seconds: 1_000_000_000n, nanos: 7 });
  expect(updatedAt).toMatchObject({ seconds: 1_000_000_005n, nanos: 7 });
  await metadata.close();
});
