/**
 * What every ContainerStore does, the database's and the remote one's alike. The remote one also runs it against real containerd, so
 * that nothing stands here which the reference does not do.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema, type Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type Container,
  Container_RuntimeSchema,
  ContainerSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { ContainerStore } from "../../src/model/containers.ts";
import { BunkerdError, type ErrorCode } from "../../src/model/errors.ts";
import type { Scope } from "../../src/model/scope.ts";

export interface StoreUnderTest {
  readonly store: ContainerStore;
  close(): Promise<void>;
}

const scope: Scope = { namespace: "suite" };
const elsewhere: Scope = { namespace: "elsewhere" };

export function anyOf(text: string, typeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Spec"): Any {
  return create(AnySchema, { typeUrl, value: new TextEncoder().encode(text) });
}

/** A container as a client would make it. */
export function containerOf(id: string, fields: Partial<Omit<Container, "$typeName">> = {}): Container {
  return create(ContainerSchema, {
    id,
    image: "docker.io/library/busybox:latest",
    runtime: create(Container_RuntimeSchema, { name: "io.containerd.runc.v2" }),
    spec: anyOf('{"ociVersion":"1.2.0"}'),
    ...fields,
  });
}

/** Awaits a failure. */
export async function failureOf(promise: Promise<unknown>): Promise<BunkerdError> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(BunkerdError);
    return error as BunkerdError;
  }
  throw new Error("it did not fail");
}

async function expectFailure(promise: Promise<unknown>, code: ErrorCode, message: string): Promise<void> {
  const error = await failureOf(promise);
  expect({ code: error.code, message: error.message }).toEqual({ code, message });
}

function nanoseconds(time: Timestamp | undefined): bigint {
  return time === undefined ? 0n : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

/** The suite makes a store for each test; it must begin empty in the namespaces `suite` and `elsewhere`. */
export function containerStoreSuite(name: string, makeStore: () => Promise<StoreUnderTest>): void {
  describe(name, () => {
    let subject: StoreUnderTest;
    beforeEach(async () => {
      subject = await makeStore();
    });
    afterEach(() => subject.close());
    const getStore = (): ContainerStore => subject.store;

    describe("create and get", () => createCases(getStore));
    describe("refusals", () => refusalCases(getStore));
    describe("list", () => listCases(getStore));
    describe("update", () => updateCases(getStore));
    describe("update of extensions and spec", () => oddUpdateCases(getStore));
    describe("delete", () => deleteCases(getStore));
  });
}

function createCases(getStore: () => ContainerStore): void {
  test("what was created is what one gets", async () => {
    const wanted = containerOf("web", {
      labels: { "io.example/tier": "front", empty: "", __proto__x: "1", constructor: "2" },
      snapshotter: "overlayfs",
      snapshotKey: "web-key",
      sandbox: "pod-1",
      runtime: create(Container_RuntimeSchema, {
        name: "io.containerd.runc.v2",
        options: anyOf("options", "opt"),
      }),
      extensions: { first: anyOf("1", "ext"), second: anyOf("", "") },
    });
    const created = await getStore().create(scope, wanted);
    const labels = { "io.example/tier": "front", __proto__x: "1", constructor: "2" };
    const { createdAt, updatedAt } = created;
    expect(created).toEqual({
      ...wanted,
      labels,
      ...(createdAt && { createdAt }),
      ...(updatedAt && { updatedAt }),
    });
    expect(await getStore().get(scope, "web")).toEqual(created);
  });

  test("both times are now and equal", async () => {
    const before = BigInt(Date.now() - 1_000) * 1_000_000n;
    const { createdAt, updatedAt } = await getStore().create(scope, containerOf("web"));
    expect(nanoseconds(createdAt)).toBe(nanoseconds(updatedAt));
    expect(nanoseconds(createdAt) > before).toBe(true);
    expect(nanoseconds(createdAt) < before + 60_000_000_000n).toBe(true);
  });

  test("a spec of any size and content survives", async () => {
    const value = new Uint8Array(300_000).map((_, index) => index * 31);
    const spec = create(AnySchema, { typeUrl: "types.containerd.io/x", value });
    await getStore().create(scope, containerOf("large", { spec }));
    expect((await getStore().get(scope, "large")).spec).toEqual(spec);
  });

  test("the image may be empty; ids go up to 76 characters", async () => {
    const id = "x".repeat(76);
    await getStore().create(scope, containerOf(id, { image: "" }));
    expect((await getStore().get(scope, id)).image).toBe("");
  });

  test("the same id lives in two namespaces", async () => {
    await getStore().create(scope, containerOf("web", { image: "one" }));
    await getStore().create(elsewhere, containerOf("web", { image: "two" }));
    await getStore().delete(scope, "web");
    expect((await getStore().get(elsewhere, "web")).image).toBe("two");
    await getStore().delete(elsewhere, "web");
  });
}

function refusalCases(getStore: () => ContainerStore): void {
  const pattern = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";

  test("a missing container", async () => {
    const message = 'container "none" in namespace "suite": not found';
    await expectFailure(getStore().get(scope, "none"), "NotFound", message);
  });

  test("an id twice", async () => {
    await getStore().create(scope, containerOf("web"));
    const message = 'container "web": already exists';
    await expectFailure(getStore().create(scope, containerOf("web")), "AlreadyExists", message);
  });

  const invalid: readonly [name: string, container: () => Container, message: string][] = [
    ["an empty id", () => containerOf(""), "container.ID: identifier must not be empty"],
    ["a path as id", () => containerOf("a/b"), `container.ID: identifier "a/b" must match ${pattern}`],
    ["dots as id", () => containerOf(".."), `container.ID: identifier ".." must match ${pattern}`],
    [
      "NUL in an id",
      () => containerOf("a\u0000b"),
      `container.ID: identifier "a\\x00b" must match ${pattern}`,
    ],
    [
      "77 characters as id",
      () => containerOf("x".repeat(77)),
      `container.ID: identifier "${"x".repeat(77)}" greater than maximum length (76 characters)`,
    ],
    [
      "a label of 4097 bytes",
      () => containerOf("web", { labels: { ["k".repeat(97)]: "ä".repeat(2000) } }),
      `containers.Labels: label key and value length (4097 bytes) greater than maximum size (4096 bytes), key: ${"k".repeat(64)}`,
    ],
    ["no runtime", () => containerOf("web", { runtime: undefined }), "container.Runtime.Name must be set"],
    [
      "an extension without a name",
      () => containerOf("web", { extensions: { "": anyOf("x") } }),
      "container.Extension keys must not be zero-length",
    ],
    [
      "a snapshot key without a snapshotter",
      () => containerOf("web", { snapshotKey: "key" }),
      "container.Snapshotter must be set if container.SnapshotKey is set",
    ],
  ];
  for (const [name, container, message] of invalid) {
    test(name, async () => {
      const full = `create container failed validation: ${message}: invalid argument`;
      await expectFailure(getStore().create(scope, container()), "InvalidArgument", full);
      expect(await getStore().list(scope)).toEqual([]);
    });
  }

  test("a label of 4096 bytes is taken", async () => {
    await getStore().create(scope, containerOf("web", { labels: { ["k".repeat(96)]: "v".repeat(4000) } }));
  });

  test("no namespace, and one that is no identifier", async () => {
    const required = "namespace is required: failed precondition";
    await expectFailure(getStore().get({ namespace: "" }, "web"), "FailedPrecondition", required);
    const message = `namespace validation: identifier "a/b" must match ${pattern}: invalid argument`;
    await expectFailure(getStore().list({ namespace: "a/b" }), "InvalidArgument", message);
    await expectFailure(
      getStore().create({ namespace: "a/b" }, containerOf("web")),
      "InvalidArgument",
      message,
    );
  });
}

function listCases(getStore: () => ContainerStore): void {
  const ids = async (...filters: string[]): Promise<string[]> =>
    (await getStore().list(scope, filters)).map(({ id }) => id);

  beforeEach(async () => {
    const runtime = create(Container_RuntimeSchema, { name: "other" });
    const store = getStore();
    await store.create(scope, containerOf("c3", { labels: { even: "false", n: "3" }, runtime }));
    await store.create(scope, containerOf("c1", { labels: { even: "false", "a.b/c d": "x" } }));
    await store.create(scope, containerOf("c2", { labels: { even: "true", n: "2" }, image: "nginx" }));
    await store.create(elsewhere, containerOf("c9"));
  });

  test("all of the namespace, by id", async () => {
    expect(await ids()).toEqual(["c1", "c2", "c3"]);
    const listed = await getStore().list(scope);
    expect(listed[1]).toEqual(await getStore().get(scope, "c2"));
  });

  test("an unknown namespace is empty", async () => {
    expect(await getStore().list({ namespace: "nowhere" })).toEqual([]);
  });

  const cases: readonly [filters: string[], expected: string[]][] = [
    [["id==c2"], ["c2"]],
    [["id!=c2"], ["c1", "c3"]],
    [["id~=^c[12]$"], ["c1", "c2"]],
    [["image==nginx"], ["c2"]],
    [["runtime.name==other"], ["c3"]],
    [["runtime.options"], []],
    [["labels.even==false"], ["c1", "c3"]],
    [["labels.n"], ["c2", "c3"]],
    [["labels.none!=x"], ["c1", "c2", "c3"]],
    [['labels."a.b/c d"==x'], ["c1"]],
    [["labels.constructor"], []],
    [["labels.even==false,labels.n==3"], ["c3"]],
    [
      ["id==c1", "labels.n==2"],
      ["c1", "c2"],
    ],
    [["snapshotter==x"], []],
  ];
  for (const [filters, expected] of cases) {
    test(filters.join(" or "), async () => expect(await ids(...filters)).toEqual(expected));
  }

  test("a filter with a mistake", async () => {
    const mistake = 'filters: parse error: [id >|=|< ]: unsupported operator "="';
    const message = `${mistake}: invalid argument: invalid argument`;
    await expectFailure(getStore().list(scope, ["id="]), "InvalidArgument", message);
  });

  test("what was changed and deleted shows at once", async () => {
    await getStore().update(scope, containerOf("c1", { labels: { n: "7" } }), ["labels"]);
    expect(await ids("labels.n")).toEqual(["c1", "c2", "c3"]);
    await getStore().delete(scope, "c2");
    await getStore().create(scope, containerOf("c0"));
    expect(await ids()).toEqual(["c0", "c1", "c3"]);
  });
}

function updateCases(getStore: () => ContainerStore): void {
  let created: Container;
  beforeEach(async () => {
    created = await getStore().create(
      scope,
      containerOf("web", {
        labels: { a: "1", b: "2" },
        snapshotter: "overlayfs",
        snapshotKey: "key",
        extensions: { x: anyOf("x") },
      }),
    );
  });

  /** Updates, and checks that the answer and what is stored agree in everything but what `changed` says. */
  async function expectChange(
    wanted: Container,
    paths: readonly string[] | undefined,
    changed: Partial<Container>,
  ): Promise<void> {
    const updated = await getStore().update(scope, wanted, paths);
    const { updatedAt } = updated;
    expect(updated).toEqual({ ...created, ...changed, ...(updatedAt && { updatedAt }) });
    expect(nanoseconds(updatedAt) > nanoseconds(created.updatedAt)).toBe(true);
    expect(await getStore().get(scope, "web")).toEqual(updated);
  }

  test("labels", () =>
    expectChange(containerOf("web", { labels: { c: "3" } }), ["labels"], { labels: { c: "3" } }));
  test("no labels", () => expectChange(containerOf("web"), ["labels"], { labels: {} }));
  test("one label", async () => {
    const wanted = containerOf("web", { labels: { a: "9", b: "9", "c.d": "3" } });
    await expectChange(wanted, ["labels.a", "labels.c.d"], { labels: { a: "9", b: "2", "c.d": "3" } });
  });
  test("one label away", () => expectChange(containerOf("web"), ["labels.a"], { labels: { b: "2" } }));
  test("a label named as an object's own", () =>
    expectChange(containerOf("web"), ["labels.constructor"], { labels: { a: "1", b: "2" } }));
  test("spec", () =>
    expectChange(containerOf("web", { spec: anyOf("{}") }), ["spec"], { spec: anyOf("{}") }));
  test("image", () => expectChange(containerOf("web", { image: "other" }), ["image"], { image: "other" }));
  test("snapshot key", () =>
    expectChange(containerOf("web", { snapshotKey: "k2" }), ["snapshotkey"], { snapshotKey: "k2" }));
  test("everything mutable without a mask", async () => {
    const { runtime, snapshotter } = created;
    const fields = { snapshotter, image: "other", labels: { z: "26" }, spec: anyOf("{}"), snapshotKey: "k2" };
    const extensions = { x: anyOf("y") };
    const wanted = containerOf("web", {
      ...fields,
      extensions,
      sandbox: "ignored",
      ...(runtime && { runtime }),
    });
    await expectChange(wanted, [], { ...fields, extensions });
    await expectChange(wanted, undefined, { ...fields, extensions });
  });

  const refused: readonly [name: string, Container, string[], ErrorCode, string][] = [
    ["a missing container", containerOf("none"), ["image"], "NotFound", 'container "none": not found'],
    [
      "an immutable field",
      containerOf("web"),
      ["image", "runtime"],
      "InvalidArgument",
      'cannot update "runtime" field on "web": invalid argument',
    ],
    [
      "the snapshotter without a mask",
      containerOf("web", { snapshotter: "native" }),
      [],
      "InvalidArgument",
      "container.Snapshotter field is immutable: invalid argument",
    ],
    [
      "the runtime without a mask",
      containerOf("web", { snapshotter: "overlayfs", runtime: undefined }),
      [],
      "InvalidArgument",
      "container.Runtime.Name field is immutable: invalid argument",
    ],
    [
      "an extension without a name",
      containerOf("web"),
      ["extensions."],
      "InvalidArgument",
      "update failed validation: container.Extension keys must not be zero-length: invalid argument",
    ],
  ];
  for (const [name, container, paths, code, message] of refused) {
    test(`refuses ${name}, and changes nothing`, async () => {
      await expectFailure(getStore().update(scope, container, paths), code, message);
      expect(await getStore().get(scope, "web")).toEqual(created);
    });
  }

  test("refuses an empty id", async () => {
    const error = await failureOf(getStore().update(scope, containerOf("")));
    expect(error.code).toBe("InvalidArgument");
  });

  test("refuses what is in a namespace that holds nothing", async () => {
    const message = 'cannot update container "web" in namespace "nowhere": not found';
    const update = getStore().update({ namespace: "nowhere" }, containerOf("web"));
    await expectFailure(update, "NotFound", message);
  });
}

/** Where containerd is not what one expects. */
function oddUpdateCases(getStore: () => ContainerStore): void {
  test("extensions are added and replaced, never removed", async () => {
    await getStore().create(scope, containerOf("web", { extensions: { x: anyOf("1"), y: anyOf("2") } }));
    await getStore().update(scope, containerOf("web", { extensions: { y: anyOf("3"), z: anyOf("4") } }), [
      "extensions",
    ]);
    const { extensions } = await getStore().get(scope, "web");
    expect(extensions).toEqual({ x: anyOf("1"), y: anyOf("3"), z: anyOf("4") });
  });

  test("one extension; one that is not given becomes empty", async () => {
    await getStore().create(scope, containerOf("web", { extensions: { x: anyOf("1") } }));
    const wanted = containerOf("web", { extensions: { x: anyOf("ignored"), y: anyOf("2") } });
    await getStore().update(scope, wanted, ["extensions.y", "extensions.z"]);
    const { extensions } = await getStore().get(scope, "web");
    expect(extensions).toEqual({ x: anyOf("1"), y: anyOf("2"), z: create(AnySchema) });
  });

  test("a spec that is not given leaves the stored one", async () => {
    const { spec } = await getStore().create(scope, containerOf("web"));
    await getStore().update(scope, containerOf("web", { spec: undefined }), ["spec"]);
    expect((await getStore().get(scope, "web")).spec).toEqual(spec);
  });

  test("a container without a spec can only be updated with one", async () => {
    await getStore().create(scope, containerOf("bare", { spec: undefined }));
    expect((await getStore().get(scope, "bare")).spec).toBeUndefined();
    const message = "update failed validation: container.Spec must be set: invalid argument";
    const bare = containerOf("bare", { spec: undefined });
    await expectFailure(getStore().update(scope, bare, ["image"]), "InvalidArgument", message);
    await getStore().update(scope, containerOf("bare", { image: "new" }), ["image", "spec"]);
    expect((await getStore().get(scope, "bare")).image).toBe("new");
  });
}

function deleteCases(getStore: () => ContainerStore): void {
  test("what is deleted is gone, and its id is free", async () => {
    await getStore().create(scope, containerOf("web"));
    await getStore().delete(scope, "web");
    expect((await failureOf(getStore().get(scope, "web"))).code).toBe("NotFound");
    await getStore().create(scope, containerOf("web", { image: "again" }));
    expect((await getStore().get(scope, "web")).image).toBe("again");
  });

  test("what is not there", async () => {
    const elsewhereEmpty = 'cannot delete container "web" in namespace "nowhere": not found';
    await expectFailure(getStore().delete({ namespace: "nowhere" }, "web"), "NotFound", elsewhereEmpty);
    await getStore().create(scope, containerOf("web"));
    await expectFailure(getStore().delete(scope, "other one"), "NotFound", "container other one: not found");
    await expectFailure(getStore().delete(scope, ""), "NotFound", "container : not found");
  });
}
