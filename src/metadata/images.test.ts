import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type Image, ImageSchema } from "#gen/containerd/services/images/v1/images_pb.ts";
import { codeOf } from "../../test/support/content-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import type { Scope } from "../model/scope.ts";

const scope: Scope = { namespace: "images" };
const digest = `sha256:${"a".repeat(64)}`;

function imageOf(name: string, { labels = {}, annotations = {} } = {}): Image {
  return create(ImageSchema, { name, labels, target: { mediaType: "a/b", digest, size: 7n, annotations } });
}

let now = 0n;
let metadata: TestMetadata;
beforeEach(async () => {
  now = 1_700_000_000_000_000_000n;
  metadata = await temporaryMetadata({ clock: { now: () => ++now } });
});
afterEach(async () => metadata.close());

describe("images", () => {
  test("what is created is got, with both times, and without empty labels", async () => {
    const image = imageOf("x", { labels: { a: "b", empty: "" }, annotations: { k: "v" } });
    const created = await metadata.images.create(scope, image);
    expect(created.labels).toEqual({ a: "b" });
    expect(created.createdAt).toEqual(created.updatedAt);
    expect(await metadata.images.get(scope, "x")).toEqual(created);
    expect(await metadata.images.list(scope)).toEqual([created]);
    expect(await metadata.images.list({ namespace: "other" })).toEqual([]);
    expect(await codeOf(metadata.images.create(scope, image))).toBe("AlreadyExists");
  });

  test("names may be any text, but not empty", async () => {
    for (const name of ["..", "a/../b", "\0", "ü", "x".repeat(30_000)]) {
      await metadata.images.create(scope, imageOf(name));
      expect((await metadata.images.get(scope, name)).name).toBe(name);
    }
    expect(await codeOf(metadata.images.create(scope, imageOf("")))).toBe("InvalidArgument");
    expect(await codeOf(metadata.images.create(scope, imageOf("x".repeat(40_000))))).toBe("InvalidArgument");
    expect(await codeOf(metadata.images.get(scope, "x".repeat(40_000)))).toBe("NotFound");
  });

  test("a refused image leaves nothing", async () => {
    for (const change of [{ digest: "sha256:../x" }, { size: 0n }, { mediaType: "" }]) {
      const image = imageOf("x");
      Object.assign(image.target ?? {}, change);
      expect(await codeOf(metadata.images.create(scope, image))).toBe("InvalidArgument");
    }
    const bare = create(ImageSchema, { name: "x" });
    expect(await codeOf(metadata.images.create(scope, bare))).toBe("InvalidArgument");
    expect(await metadata.images.list(scope)).toEqual([]);
    expect(metadata.events).toEqual([]);
  });

  test("a refused update changes nothing", async () => {
    const created = await metadata.images.create(scope, imageOf("x", { labels: { a: "b" } }));
    const wanted = imageOf("x", { labels: { c: "d" } });
    expect(await codeOf(metadata.images.update(scope, wanted, ["labels", "name"]))).toBe("InvalidArgument");
    const empty = create(ImageSchema, { name: "x" });
    expect(await codeOf(metadata.images.update(scope, empty, ["target"]))).toBe("InvalidArgument");
    expect(await metadata.images.get(scope, "x")).toEqual(created);
  });

  test("an update keeps the time of creation", async () => {
    const created = await metadata.images.create(scope, imageOf("x"));
    const updated = await metadata.images.update(scope, imageOf("x", { labels: { a: "b" } }));
    expect(updated.createdAt).toEqual(created.createdAt);
    expect(updated.updatedAt).not.toEqual(created.updatedAt);
    expect(updated.labels).toEqual({ a: "b" });
  });

  test("a delete that names another target deletes nothing", async () => {
    await metadata.images.create(scope, imageOf("x"));
    const other = { targetDigest: `sha256:${"b".repeat(64)}` };
    expect(await codeOf(metadata.images.delete(scope, "x", other))).toBe("NotFound");
    await metadata.images.delete(scope, "x", { targetDigest: digest });
    expect(await codeOf(metadata.images.delete(scope, "x"))).toBe("NotFound");
  });

  test("an image that expires is the lease's, others are not", async () => {
    const leased = { ...scope, lease: "l" };
    await metadata.leases.create(scope, { id: "l" });
    await metadata.images.create(leased, imageOf("stays"));
    const expiring = imageOf("goes", { labels: { "containerd.io/gc.expire": "2099-01-01T00:00:00Z" } });
    await metadata.images.create(leased, expiring);
    const held = async () => (await metadata.leases.listResources(scope, "l")).map(({ id }) => id);
    expect(await held()).toEqual(["goes"]);
    await metadata.images.delete(leased, "goes");
    expect(await held()).toEqual([]);
    const unheld = { ...scope, lease: "none" };
    expect(await codeOf(metadata.images.create(unheld, expiring))).toBe("NotFound");
  });

  test("creation, update and deletion are told", async () => {
    await metadata.images.create(scope, imageOf("x", { labels: { a: "b" } }));
    await metadata.images.update(scope, imageOf("x", { labels: { c: "d" } }), ["labels"]);
    await metadata.images.delete(scope, "x");
    expect(metadata.events).toMatchObject([
      { namespace: "images", topic: "/images/create", event: { name: "x", labels: { a: "b" } } },
      { namespace: "images", topic: "/images/update", event: { name: "x", labels: { c: "d" } } },
      { namespace: "images", topic: "/images/delete", event: { name: "x" } },
    ]);
  });

  test("times may be set, for images that are built alike", async () => {
    const sourceDateEpoch = { seconds: 5n, nanos: 6 };
    const options = { sourceDateEpoch: create(TimestampSchema, sourceDateEpoch) };
    const created = await metadata.images.create(scope, imageOf("x"), options);
    expect([created.createdAt, created.updatedAt]).toMatchObject([sourceDateEpoch, sourceDateEpoch]);
  });
});
