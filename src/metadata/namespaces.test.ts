import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { containerOf, failureOf } from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import { createNamespaceBucket, EMPTY, KEY } from "./schema.ts";

let metadata: TestMetadata;
let store: NamespaceStore;

beforeEach(async () => {
  metadata = await temporaryMetadata();
  store = metadata.namespaces;
});
afterEach(() => metadata.close());

function namespaceOf(name: string, labels: Record<string, string> = {}) {
  return create(NamespaceSchema, { name, labels });
}

async function expectFailure(promise: Promise<unknown>, failure: string): Promise<void> {
  const { code, message } = await failureOf(promise);
  expect(`${code} ${message}`).toBe(failure);
}

const PATTERN = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";

describe("create", () => {
  test("stores the labels that are not empty, answers and publishes what was asked for", async () => {
    const wanted = namespaceOf("one", { a: "1", empty: "", constructor: "c" });
    expect(await store.create(wanted)).toEqual(wanted);
    expect(await store.get("one")).toEqual(namespaceOf("one", { a: "1", constructor: "c" }));
    const event = expect.objectContaining({ name: "one", labels: wanted.labels });
    expect(metadata.events).toEqual([{ namespace: "one", topic: "/namespaces/create", event }]);
  });

  test("refuses names and labels, and publishes nothing", async () => {
    await store.create(namespaceOf("one"));
    metadata.events.length = 0;
    const refusals: readonly [ReturnType<typeof namespaceOf>, string][] = [
      [namespaceOf("one"), 'AlreadyExists namespace "one": already exists'],
      [namespaceOf(""), "InvalidArgument identifier must not be empty: invalid argument"],
      [namespaceOf("a/b"), `InvalidArgument identifier "a/b" must match ${PATTERN}: invalid argument`],
      [namespaceOf("version"), 'InvalidArgument namespace "version": incompatible value: invalid argument'],
      [
        namespaceOf("two", { k: "v".repeat(4096) }),
        "InvalidArgument namespace.Labels: label key and value length (4097 bytes) greater than maximum size (4096 bytes), key: k: invalid argument",
      ],
      [
        namespaceOf("two", { "": "v" }),
        'InvalidArgument failed to set label ""="v": key required: invalid argument',
      ],
    ];
    for (const [namespace, failure] of refusals) await expectFailure(store.create(namespace), failure);
    expect((await store.list()).map(({ name }) => name)).toEqual(["one"]);
    expect(metadata.events).toEqual([]);
  });

  test("an overlong name is not repeated", async () => {
    const { code, message } = await failureOf(store.create(namespaceOf("x".repeat(2_000_000))));
    expect(code).toBe("InvalidArgument");
    expect(message.length).toBeLessThan(500);
  });
});

describe("get and list", () => {
  test("a namespace that never was has no labels", async () => {
    expect(await store.get("none")).toEqual(namespaceOf("none"));
    expect(await store.get("version")).toEqual(namespaceOf("version"));
    expect(await store.list()).toEqual([]);
  });

  test("by name; the version is no namespace; an object makes its namespace", async () => {
    await store.create(namespaceOf("b", { x: "y" }));
    await metadata.containers.create({ namespace: "a" }, containerOf("web"));
    expect(await store.list()).toEqual([namespaceOf("a"), namespaceOf("b", { x: "y" })]);
  });
});

describe("update", () => {
  test("labels named by the mask", async () => {
    await store.create(namespaceOf("one", { a: "1", b: "2" }));
    const wanted = namespaceOf("one", { a: "9", c: "3" });
    const updated = await store.update(wanted, ["labels.c", "labels.b"]);
    expect(updated).toEqual(namespaceOf("one", { a: "1", c: "3" }));
    expect(await store.get("one")).toEqual(updated);
    expect(metadata.events[1]).toEqual({
      namespace: "one",
      topic: "/namespaces/update",
      event: expect.objectContaining({ name: "one", labels: { a: "9", c: "3" } }),
    });
  });

  test("all labels without a mask", async () => {
    await store.create(namespaceOf("one", { a: "1", b: "2" }));
    expect(await store.update(namespaceOf("one", { c: "3", d: "" }))).toEqual(namespaceOf("one", { c: "3" }));
    expect(await store.update(namespaceOf("one"))).toEqual(namespaceOf("one"));
  });

  test("makes a namespace with its first label", async () => {
    await store.update(namespaceOf("bare"));
    expect(await store.list()).toEqual([]);
    await store.update(namespaceOf("new", { a: "1" }));
    expect(await store.list()).toEqual([namespaceOf("new", { a: "1" })]);
  });

  test("refuses, and leaves everything as it was", async () => {
    await store.create(namespaceOf("one", { a: "1" }));
    metadata.events.length = 0;
    const wanted = namespaceOf("one", { a: "2", long: "v".repeat(4096) });
    const refusals: readonly [() => Promise<unknown>, string][] = [
      [() => store.update(wanted, ["labels.a", "name"]), 'InvalidArgument cannot update "name" field'],
      [() => store.update(wanted, ["labels"]), 'InvalidArgument cannot update "labels" field'],
      [
        () => store.update(wanted, ["labels.a", "labels.long"]),
        "InvalidArgument namespace.Labels: label key and value length (4100 bytes) greater than maximum size (4096 bytes), key: long: invalid argument",
      ],
      [
        () => store.update(wanted),
        "InvalidArgument namespace.Labels: label key and value length (4100 bytes) greater than maximum size (4096 bytes), key: long: invalid argument",
      ],
      [
        () => store.update(namespaceOf("..", { a: "1" })),
        `InvalidArgument identifier ".." must match ${PATTERN}: invalid argument`,
      ],
      [
        () => store.update(namespaceOf("version", { a: "1" })),
        'InvalidArgument namespace "version": incompatible value: invalid argument',
      ],
    ];
    for (const [update, failure] of refusals) await expectFailure(update(), failure);
    expect(await store.list()).toEqual([namespaceOf("one", { a: "1" })]);
    expect(metadata.events).toEqual([]);
  });
});

describe("delete", () => {
  test("an empty namespace goes with its labels, leases and sandboxes", async () => {
    await store.create(namespaceOf("one", { a: "1" }));
    await metadata.leases.create({ namespace: "one" }, { id: "lease" });
    await metadata.containers.create({ namespace: "one" }, containerOf("web"));
    await metadata.containers.delete({ namespace: "one" }, "web");
    metadata.events.length = 0;
    await store.delete("one");
    expect(await store.list()).toEqual([]);
    const event = expect.objectContaining({ name: "one" });
    expect(metadata.events).toEqual([{ namespace: "one", topic: "/namespaces/delete", event }]);
  });

  test("says all that it still holds", async () => {
    await metadata.containers.create({ namespace: "one" }, containerOf("web"));
    const start = 'FailedPrecondition namespace "one" must be empty, but it still has';
    await expectFailure(store.delete("one"), `${start} containers: failed precondition`);
    await metadata.db.update((tx) => {
      const bucket = createNamespaceBucket(tx, "one");
      bucket.createBucket(KEY.images).createBucket("busybox");
      bucket.createBucket(KEY.content).createBucket(KEY.blob).createBucket("sha256:0");
      const snapshots = bucket.createBucket(KEY.snapshots);
      snapshots.createBucket("native").createBucket("key");
      snapshots.createBucket("overlayfs").put("key", EMPTY);
      snapshots.createBucket("empty");
    });
    const held =
      'images, blobs, containers, snapshots on "native" snapshotter, snapshots on "overlayfs" snapshotter';
    await expectFailure(store.delete("one"), `${start} ${held}: failed precondition`);
    expect((await store.list()).length).toBe(1);
  });

  test("what is not there", async () => {
    await expectFailure(store.delete("none"), 'NotFound namespace "none": not found');
    await expectFailure(store.delete(""), 'NotFound namespace "": not found');
    const reserved = 'InvalidArgument namespace "version": incompatible value: invalid argument';
    await expectFailure(store.delete("version"), reserved);
  });
});
