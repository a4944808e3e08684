import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { failureOf } from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { LABEL_GC_EXPIRE } from "../model/labels.ts";
import type { LeaseStore } from "../model/leases.ts";

const scope = { namespace: "leases" };
const DIGEST = `sha256:${"ab".repeat(32)}`;

let metadata: TestMetadata;
let store: LeaseStore;

beforeEach(async () => {
  metadata = await temporaryMetadata();
  store = metadata.leases;
});
afterEach(() => metadata.close());

function resourceOf(type: string, id: string): Resource {
  return create(ResourceSchema, { type, id });
}

async function expectFailure(promise: Promise<unknown>, failure: string): Promise<void> {
  const { code, message } = await failureOf(promise);
  expect(`${code} ${message}`).toBe(failure);
}

describe("leases", () => {
  test("are what was created, without empty labels", async () => {
    const labels = { [LABEL_GC_EXPIRE]: "2099-01-01T00:00:00Z", empty: "", constructor: "c" };
    const created = await store.create(scope, { id: "one", labels });
    expect(created.labels).toEqual({ [LABEL_GC_EXPIRE]: "2099-01-01T00:00:00Z", constructor: "c" });
    expect(Math.abs(Number(created.createdAt?.seconds) - Date.now() / 1000)).toBeLessThan(60);
    expect(await store.list(scope)).toEqual([created]);
    expect(metadata.events).toEqual([]);
  });

  test("may be named by any text, or by chance", async () => {
    await store.create(scope, { id: "a/b ü" });
    const [first, second] = [await store.create(scope, {}), await store.create(scope, { id: "" })];
    expect(first.id).toMatch(/^\d{1,9}-[\w-]{4}$/);
    expect(first.id).not.toBe(second.id);
    expect((await store.list(scope, ['id=="a/b ü"'])).length).toBe(1);
  });

  test("are listed by id and filter, each namespace for itself", async () => {
    await store.create(scope, { id: "b", labels: { kind: "x" } });
    await store.create(scope, { id: "a" });
    await store.create({ namespace: "other" }, { id: "c" });
    const ids = async (...filters: string[]) => (await store.list(scope, filters)).map(({ id }) => id);
    expect(await ids()).toEqual(["a", "b"]);
    expect(await ids("labels.kind==x")).toEqual(["b"]);
    expect(await ids("labels.constructor")).toEqual([]);
    expect(await ids("id==a", "labels.kind")).toEqual(["a", "b"]);
    expect(await store.list({ namespace: "none" })).toEqual([]);
    const mistake = 'filters: parse error: [id >|=|< ]: unsupported operator "="';
    await expectFailure(ids("id="), `InvalidArgument ${mistake}: invalid argument: invalid argument`);
  });

  test("refuse a second of the name, overlong ids, labels without a key", async () => {
    await store.create(scope, { id: "one" });
    await expectFailure(store.create(scope, { id: "one" }), 'AlreadyExists lease "one": already exists');
    const long = await failureOf(store.create(scope, { id: "x".repeat(2_000_000) }));
    expect(long.code).toBe("InvalidArgument");
    expect(long.message.length).toBeLessThan(500);
    const label = store.create(scope, { id: "two", labels: { "": "v" } });
    await expectFailure(label, 'InvalidArgument failed to set label ""="v": key required: invalid argument');
    await expectFailure(
      store.create({ namespace: "" }, {}),
      "FailedPrecondition namespace is required: failed precondition",
    );
    expect((await store.list(scope)).map(({ id }) => id)).toEqual(["one"]);
  });

  test("are deleted with what they hold", async () => {
    await store.create(scope, { id: "one" });
    await store.addResource(scope, "one", resourceOf("images", "busybox"));
    await store.delete(scope, "one", { sync: true });
    expect(await store.list(scope)).toEqual([]);
    await expectFailure(store.delete(scope, "one"), 'NotFound lease "one": not found');
    await expectFailure(store.delete(scope, ""), 'NotFound lease "": not found');
    await expectFailure(store.delete({ namespace: "none" }, "one"), 'NotFound lease "one": not found');
  });
});

describe("resources", () => {
  beforeEach(async () => void (await store.create(scope, { id: "one", labels: { a: "b" } })));

  const added = [
    resourceOf("content", DIGEST),
    resourceOf("images", "docker.io/library/busybox:latest"),
    resourceOf("ingests", "upload-1"),
    resourceOf("snapshots/native", "key"),
    resourceOf("snapshots/overlayfs", "a/key b"),
    resourceOf("snapshots/overlayfs", "b"),
  ];

  test("are listed by type and id, whatever the order of adding; adding twice is one", async () => {
    for (const resource of [...added].reverse()) await store.addResource(scope, "one", resource);
    await store.addResource(scope, "one", resourceOf("content", DIGEST));
    expect(await store.listResources(scope, "one")).toEqual(added);
  });

  test("go one by one; what is not there is no error", async () => {
    for (const resource of added) await store.addResource(scope, "one", resource);
    await store.deleteResource(scope, "one", resourceOf("snapshots/overlayfs", "b"));
    await store.deleteResource(scope, "one", resourceOf("snapshots/none", "b"));
    await store.deleteResource(scope, "one", resourceOf("images", "none"));
    await store.deleteResource(scope, "one", resourceOf("content", DIGEST));
    expect(await store.listResources(scope, "one")).toEqual(added.slice(1, 5));
  });

  const refused: readonly [type: string, id: string, failure: string][] = [
    ["content", "foo", "content resource id foo: invalid checksum digest format"],
    ["content", "", "content resource id : invalid checksum digest format"],
    ["content", "sha256:abc", "content resource id sha256:abc: invalid checksum digest length"],
    ["content", "md5:abc", "content resource id md5:abc: unsupported digest algorithm"],
    [
      "content",
      DIGEST.toUpperCase().replace("SHA", "sha"),
      `content resource id ${DIGEST.toUpperCase().replace("SHA", "sha")}: invalid checksum digest format`,
    ],
    ["content/x", DIGEST, "resource type content/x"],
    ["snapshots", "key", "snapshot resource type snapshots"],
    ["snapshots/a/b", "key", "snapshot resource type snapshots/a/b"],
  ];
  for (const [type, id, failure] of refused) {
    test(`refuse ${type} ${id.slice(0, 20)}`, async () => {
      const full = `InvalidArgument invalid ${failure}: invalid argument`;
      await expectFailure(store.addResource(scope, "one", resourceOf(type, id)), full);
      await expectFailure(store.deleteResource(scope, "one", resourceOf(type, id)), full);
      expect(await store.listResources(scope, "one")).toEqual([]);
    });
  }

  test("refuse empty and overlong names, and leave no bucket behind", async () => {
    const long = "x".repeat(2_000_000);
    for (const [type, id] of [
      ["images", ""],
      ["snapshots/", "key"],
      ["images", long],
      ["content", `sha256:${long}`],
      [`snapshots/${long}`, "key"],
    ] as const) {
      const { code, message } = await failureOf(store.addResource(scope, "one", resourceOf(type, id)));
      expect(code).toBe("InvalidArgument");
      expect(message.length).toBeLessThan(500);
    }
    expect(await store.listResources(scope, "one")).toEqual([]);
  });

  test("of unknown types are not implemented", async () => {
    const failure = "Unimplemented resource type volumes not supported yet: not implemented";
    await expectFailure(store.addResource(scope, "one", resourceOf("volumes", "x")), failure);
    await expectFailure(store.deleteResource(scope, "one", resourceOf("volumes", "x")), failure);
  });

  test("need their lease", async () => {
    const resource = resourceOf("images", "x");
    const failure = 'NotFound lease "none": not found';
    await expectFailure(store.addResource(scope, "none", resource), failure);
    await expectFailure(store.deleteResource(scope, "none", resource), failure);
    await expectFailure(store.listResources(scope, "none"), failure);
  });
});
