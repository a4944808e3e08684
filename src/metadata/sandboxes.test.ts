import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { type Sandbox, SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { anyOf, failureOf } from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import type { SandboxStore } from "../model/sandboxes.ts";

const scope = { namespace: "pods" };

let metadata: TestMetadata;
let store: SandboxStore;

beforeEach(async () => {
  metadata = await temporaryMetadata();
  store = metadata.sandboxes;
});
afterEach(() => metadata.close());

function sandboxOf(sandboxId: string, fields: Partial<Omit<Sandbox, "$typeName" | "runtime">> = {}): Sandbox {
  return create(SandboxSchema, { sandboxId, runtime: { name: "runc" }, ...fields });
}

async function expectFailure(promise: Promise<unknown>, failure: string): Promise<void> {
  const { code, message } = await failureOf(promise);
  expect(`${code} ${message}`).toBe(failure);
}

describe("create and get", () => {
  test("what was created is what one gets, without empty labels; nothing is published", async () => {
    const wanted = create(SandboxSchema, {
      sandboxId: "pod",
      runtime: { name: "runc", options: anyOf("o") },
      spec: anyOf("{}"),
      labels: { a: "1", empty: "", constructor: "c" },
      extensions: { x: anyOf("x"), constructor: anyOf("c") },
      sandboxer: "podsandbox",
    });
    const created = await store.create(scope, wanted);
    const { createdAt, updatedAt } = created;
    expect(createdAt).toEqual(updatedAt);
    expect(created).toEqual({
      ...wanted,
      labels: { a: "1", constructor: "c" },
      ...(createdAt && { createdAt, updatedAt: createdAt }),
    });
    expect(await store.get(scope, "pod")).toEqual(created);
    expect(metadata.events).toEqual([]);
  });

  test("refusals", async () => {
    await expectFailure(store.get(scope, "pod"), "NotFound no sandbox buckets: not found");
    await store.create(scope, sandboxOf("pod"));
    const again = 'AlreadyExists write error: sandbox bucket "pod" already exists: already exists';
    await expectFailure(store.create(scope, sandboxOf("pod")), again);
    await expectFailure(store.get(scope, "none"), 'NotFound bucket "none" not found: not found');
    const validation = "InvalidArgument failed to validate sandbox:";
    const pattern = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";
    await expectFailure(
      store.create(scope, sandboxOf("a/b")),
      `${validation} invalid sandbox ID: identifier "a/b" must match ${pattern}: invalid argument`,
    );
    const bare = create(SandboxSchema, { sandboxId: "bare" });
    await expectFailure(
      store.create(scope, bare),
      `${validation} sandbox.Runtime must be set: invalid argument`,
    );
    const unnamed = await failureOf(
      store.create(scope, sandboxOf("new", { extensions: { "": anyOf("x") } })),
    );
    expect(unnamed.code).toBe("InvalidArgument");
    expect((await store.list(scope)).length).toBe(1);
  });
});

describe("list", () => {
  test("by id and filter", async () => {
    expect(await store.list(scope)).toEqual([]);
    for (const id of ["c", "a", "b"]) await store.create(scope, sandboxOf(id, { labels: { id } }));
    const ids = async (...filters: string[]) =>
      (await store.list(scope, filters)).map(({ sandboxId }) => sandboxId);
    expect(await ids()).toEqual(["a", "b", "c"]);
    expect(await ids("id~=[ab]")).toEqual(["a", "b"]);
    expect(await ids("labels.id==c", "id==a")).toEqual(["a", "c"]);
    expect(await ids("labels.constructor")).toEqual([]);
    expect((await failureOf(ids("id="))).code).toBe("InvalidArgument");
  });
});

describe("update", () => {
  let created: Sandbox;
  beforeEach(async () => {
    created = await store.create(
      scope,
      create(SandboxSchema, {
        sandboxId: "pod",
        runtime: { name: "runc", options: anyOf("o") },
        spec: anyOf("{}"),
        labels: { a: "1", b: "2" },
        extensions: { x: anyOf("1") },
        sandboxer: "podsandbox",
      }),
    );
  });

  test("fields of the mask", async () => {
    const wanted = sandboxOf("pod", { labels: { a: "9", c: "3" }, extensions: { y: anyOf("2") } });
    const updated = await store.update(scope, wanted, [
      "labels.c",
      "labels.b",
      "extensions.y",
      "extensions.z",
    ]);
    expect(updated.labels).toEqual({ a: "1", c: "3" });
    expect(updated.extensions).toEqual({ x: anyOf("1"), y: anyOf("2"), z: create(AnySchema) });
    expect(updated.createdAt).toEqual(created.createdAt);
    expect(updated.updatedAt).not.toEqual(created.updatedAt);
    expect(await store.get(scope, "pod")).toEqual(updated);
  });

  test("the runtime, of which options that are not given stay", async () => {
    const wanted = create(SandboxSchema, { sandboxId: "pod", runtime: { name: "other" } });
    await store.update(scope, wanted, ["runtime"]);
    expect((await store.get(scope, "pod")).runtime).toMatchObject({ name: "other", options: anyOf("o") });
  });

  test("everything without a mask, but the runtime's name; the spec stays if none is given", async () => {
    const wanted = sandboxOf("pod", { labels: {}, extensions: { x: anyOf("7"), z: anyOf("8") } });
    await store.update(scope, wanted);
    const { labels, extensions, spec, sandboxer } = await store.get(scope, "pod");
    expect({ labels, extensions, spec, sandboxer }).toEqual({
      labels: {},
      extensions: { x: anyOf("7"), z: anyOf("8") },
      spec: anyOf("{}"),
      sandboxer: "podsandbox",
    });
  });

  test("refusals change nothing", async () => {
    const other = create(SandboxSchema, { sandboxId: "pod", runtime: { name: "other" } });
    const immutable = "InvalidArgument sandbox.Runtime.Name field is immutable: invalid argument";
    await expectFailure(store.update(scope, other), immutable);
    const sandboxer = 'InvalidArgument cannot update "sandboxer" field on sandbox "pod": invalid argument';
    await expectFailure(store.update(scope, other, ["labels", "sandboxer"]), sandboxer);
    expect(await store.get(scope, "pod")).toEqual(created);
    const missing = 'NotFound bucket "none" not found: not found';
    await expectFailure(store.update(scope, sandboxOf("none")), missing);
    const nowhere = store.update({ namespace: "nowhere" }, sandboxOf("pod"));
    await expectFailure(nowhere, "NotFound no sandbox buckets: not found");
  });
});

test("delete", async () => {
  await expectFailure(store.delete(scope, "pod"), "NotFound no sandbox buckets: not found");
  await store.create(scope, sandboxOf("pod"));
  await store.delete(scope, "pod");
  await expectFailure(store.delete(scope, "pod"), 'NotFound failed to delete sandbox "pod": not found');
});
