import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  CreateContainerResponseSchema,
  GetContainerResponseSchema,
  ListContainerMessageSchema,
  ListContainersResponseSchema,
  UpdateContainerResponseSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { anyOf, containerOf, failureOf } from "../../test/support/container-store-suite.ts";
import { recordingPublisher, type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { systemClock } from "../lib/clock.ts";
import { recordOf } from "../model/container-record.ts";
import type { ContainerStore, EncodedContainers } from "../model/containers.ts";
import { Changes } from "./changes.ts";
import { ContainerCache } from "./container-cache.ts";
import { openContainers } from "./containers.ts";
import { createObjectsBucket, KEY } from "./schema.ts";

const scope = { namespace: "one" };
const other = { namespace: "two" };

interface Subject {
  readonly cache: ContainerCache;
  readonly store: ContainerStore & EncodedContainers;
}

let metadata: TestMetadata;

beforeEach(async () => {
  metadata = await temporaryMetadata();
});
afterEach(() => metadata.close());

/** A store with a cache of its own over the test's database; it does not hear of the other stores' changes. */
function storeOver(maxBytes: number): Subject {
  const cache = new ContainerCache(metadata.db, maxBytes);
  const publisher = recordingPublisher();
  return {
    cache,
    store: openContainers({
      db: metadata.db,
      cache,
      publisher,
      clock: systemClock(),
      changes: new Changes(),
    }),
  };
}

const ids = (store: EncodedContainers, ...filters: string[]): string[] =>
  fromBinary(ListContainersResponseSchema, Buffer.concat(store.listEncoded(scope, filters))).containers.map(
    ({ id }) => id,
  );

describe("encoded answers", () => {
  beforeEach(async () => {
    const labels = { a: "1", "long.key": "v".repeat(200) };
    await metadata.containers.create(
      scope,
      containerOf("full", {
        labels,
        snapshotter: "overlayfs",
        snapshotKey: "k",
        sandbox: "pod",
        extensions: { x: anyOf("x"), y: anyOf("", "") },
        spec: anyOf("s".repeat(100_000)),
      }),
    );
    await metadata.containers.create(scope, containerOf("bare", { spec: undefined, image: "" }));
  });

  test("are what protobuf would write", async () => {
    const containers = await metadata.containers.list(scope);
    for (const container of containers) {
      const response = create(GetContainerResponseSchema, { container });
      const bytes = metadata.containers.getEncoded(scope, container.id);
      expect(bytes).toEqual(toBinary(GetContainerResponseSchema, response));
    }
    const listed = toBinary(
      ListContainersResponseSchema,
      create(ListContainersResponseSchema, { containers }),
    );
    const encoded = metadata.containers.listEncoded(scope);
    expect(new Uint8Array(Buffer.concat(encoded))).toEqual(listed);
    const streamed = encoded.map((bytes) => fromBinary(ListContainerMessageSchema, bytes).container);
    expect(streamed).toEqual(containers);
  });

  test("of a change are what is stored", async () => {
    const { containers } = metadata;
    const extensions = { z: anyOf("z"), a: anyOf("", "") };
    const web = containerOf("web", { labels: { b: "1", a: "2", empty: "" }, extensions });
    const created = fromBinary(
      CreateContainerResponseSchema,
      await containers.createEncoded(scope, recordOf(web)),
    );
    expect(created.container).toEqual(await containers.get(scope, "web"));
    const changes: [string[], Partial<typeof web>][] = [
      [["labels"], { labels: { c: "3", empty: "" } }],
      [["labels.c", "labels.d"], { labels: { d: "4" } }],
      [["image", "extensions.z"], { image: "other", extensions: { z: anyOf("new") } }],
      [["spec"], { spec: anyOf("s".repeat(10_000)) }],
    ];
    for (const [paths, fields] of changes) {
      const bytes = await containers.updateEncoded(scope, recordOf(containerOf("web", fields)), paths);
      const { container } = fromBinary(UpdateContainerResponseSchema, bytes);
      expect(container).toEqual(await containers.get(scope, "web"));
      expect(container).toMatchObject(fields.labels === undefined ? fields : {});
    }
    expect((await containers.get(scope, "web")).labels).toEqual({ d: "4" });
    expect((await containers.get(scope, "web")).createdAt).toEqual(created.container?.createdAt);
  });

  test("refuse what the store refuses", async () => {
    const { containers } = metadata;
    const twice = async () => containers.createEncoded(scope, recordOf(containerOf("full")));
    expect(await failureOf(twice())).toMatchObject({ code: "AlreadyExists" });
    const none = async () => containers.updateEncoded(scope, recordOf(containerOf("none")), ["labels"]);
    expect(await failureOf(none())).toMatchObject({ code: "NotFound" });
    expect(() => containers.getEncoded(scope, "none")).toThrow(
      'container "none" in namespace "one": not found',
    );
    expect(() => containers.listEncoded(scope, ["id=="])).toThrow("expected value or quoted");
    expect(() => containers.listEncoded({ namespace: "" })).toThrow("namespace is required");
    expect(containers.listEncoded({ namespace: "none" }).length).toBe(0);
  });

  test("stay as they were when the container changes", async () => {
    const bytes = metadata.containers.getEncoded(scope, "bare");
    const before = bytes.slice();
    await metadata.containers.update(scope, containerOf("bare", { image: "new" }), ["image", "spec"]);
    expect(bytes).toEqual(before);
    expect(metadata.containers.getEncoded(scope, "bare")).not.toEqual(before);
  });

  test("are not changed by changing a message", async () => {
    const container = await metadata.containers.get(scope, "full");
    container.spec?.value.fill(0);
    expect((await metadata.containers.get(scope, "full")).spec).toEqual(anyOf("s".repeat(100_000)));
  });
});

describe("the cache", () => {
  test("a change that failed leaves it as it was", async () => {
    await metadata.containers.create(scope, containerOf("web"));
    expect(ids(metadata.containers)).toEqual(["web"]);
    await failureOf(metadata.containers.update(scope, containerOf("web"), ["image", "runtime"]));
    await failureOf(metadata.containers.create(scope, containerOf("web")));
    expect(ids(metadata.containers)).toEqual(["web"]);
  });

  test("shows what is durable, no sooner", async () => {
    await metadata.containers.create(scope, containerOf("web", { image: "old" }));
    expect(ids(metadata.containers, "image==old")).toEqual(["web"]);
    const update = metadata.containers.update(scope, containerOf("web", { image: "new" }), ["image"]);
    const creation = metadata.containers.create(scope, containerOf("api"));
    expect(ids(metadata.containers, "image==old")).toEqual(["web"]);
    await Promise.all([update, creation]);
    expect(ids(metadata.containers, "image==new")).toEqual(["web"]);
    expect(ids(metadata.containers)).toEqual(["api", "web"]);
  });

  test("a namespace that was deleted and made again begins empty", async () => {
    await metadata.containers.create(scope, containerOf("web"));
    ids(metadata.containers);
    await metadata.containers.delete(scope, "web");
    await metadata.namespaces.delete("one");
    expect(ids(metadata.containers)).toEqual([]);
    await metadata.containers.create(scope, containerOf("new"));
    expect(ids(metadata.containers)).toEqual(["new"]);
  });

  test("one malformed container is named; the others are served", async () => {
    await metadata.containers.create(scope, containerOf("good"));
    await metadata.containers.create(scope, containerOf("bad"));
    await metadata.db.update((tx) => {
      createObjectsBucket(tx, "one", "containers").bucket("bad")?.put(KEY.spec, Uint8Array.of(10, 200));
    });
    const { store } = storeOver(1 << 20);
    const error = await failureOf(store.get(scope, "bad"));
    expect(error.code).toBe("DataLoss");
    expect(error.message).toStartWith('failed to read container "bad": failed to unmarshal spec');
    expect(() => store.listEncoded(scope)).toThrow('container "bad"');
    expect((await failureOf(store.update(scope, containerOf("bad"), ["image"]))).code).toBe("DataLoss");
    expect((await store.get(scope, "good")).id).toBe("good");
    await store.delete(scope, "bad");
    expect(ids(store)).toEqual(["good"]);
  });
});

describe("the bound", () => {
  const spec = anyOf("s".repeat(4_000));

  test("holds, whatever is listed, and answers stay right", async () => {
    const { store, cache } = storeOver(20_000);
    for (let index = 10; index < 30; index++) await store.create(scope, containerOf(`c${index}`, { spec }));
    for (let round = 0; round < 2; round++) {
      expect(ids(store).length).toBe(20);
      expect(ids(store, "id==c29")).toEqual(["c29"]);
      expect((await store.get(scope, "c25")).spec).toEqual(spec);
      expect(cache.sizeBytes).toBeGreaterThan(10_000);
      expect(cache.sizeBytes).toBeLessThanOrEqual(20_000);
    }
  });

  test("holds while ids are added to a list that was kept", async () => {
    const { store, cache } = storeOver(1_000);
    await store.create(scope, containerOf("c0", { spec }));
    for (let index = 1; index < 30; index++) {
      expect(ids(store).length).toBe(index);
      await store.create(scope, containerOf(`c${index}`, { spec }));
      expect(cache.sizeBytes).toBeLessThanOrEqual(1_000);
    }
  });

  test("sends nobody away for a container that never fits", async () => {
    const { store, cache } = storeOver(10_000);
    await store.create(scope, containerOf("web", { spec }));
    store.listEncoded(scope);
    const held = cache.sizeBytes;
    await store.create(other, containerOf("giant", { spec: anyOf("g".repeat(20_000)) }));
    await store.get(other, "giant");
    expect(cache.sizeBytes).toBe(held);
  });

  test("of zero keeps nothing", async () => {
    const { store, cache } = storeOver(0);
    await store.create(scope, containerOf("web"));
    expect(ids(store)).toEqual(["web"]);
    expect((await store.get(scope, "web")).id).toBe("web");
    expect(cache.sizeBytes).toBe(0);
  });

  test("lets the namespace go that was not used for longest", async () => {
    const { store, cache } = storeOver(14_000);
    for (const namespace of ["one", "two", "three"]) {
      await store.create({ namespace }, containerOf("web", { spec }));
    }
    store.listEncoded({ namespace: "one" });
    store.listEncoded({ namespace: "two" });
    store.listEncoded({ namespace: "one" });
    const full = cache.sizeBytes;
    store.listEncoded({ namespace: "three" });
    expect(cache.sizeBytes).toBe(full);
    const held = ["one", "two", "three"].filter((namespace) => {
      const before = cache.sizeBytes;
      cache.forget(namespace);
      return cache.sizeBytes < before;
    });
    expect(held).toEqual(["one", "three"]);
    expect(cache.sizeBytes).toBe(0);
  });
});

describe("any order of changes and reads", () => {
  type Step = readonly [action: "create" | "update" | "delete" | "get" | "list", id: number];
  const step: fc.Arbitrary<Step> = fc.tuple(
    fc.constantFrom("create", "update", "delete", "get", "list"),
    fc.integer({ min: 0, max: 5 }),
  );

  async function carryOut(store: ContainerStore & EncodedContainers, [action, number]: Step): Promise<void> {
    const id = `c${number}`;
    const container = containerOf(id, { labels: { n: "x".repeat(number * 100) } });
    if (action === "list") ids(store);
    else if (action === "get") await store.get(scope, id);
    else if (action === "delete") await store.delete(scope, id);
    else if (action === "create") await store.create(scope, container);
    else await store.update(scope, containerOf(id, { image: String(Math.random()) }), ["image"]);
  }

  for (const maxBytes of [1 << 20, 3_000]) {
    test(`answers as a new cache would, bound ${maxBytes}`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 30 }), async (steps) => {
          const { store, cache } = storeOver(maxBytes);
          const running: Promise<unknown>[] = [];
          for (const [each, wait] of steps) {
            const done = carryOut(store, each).catch((error: Error) => {
              expect(error.message).toMatch(/not found|already exists/);
            });
            running.push(done);
            if (wait) await Promise.all(running);
            expect(cache.sizeBytes).toBeLessThanOrEqual(maxBytes);
          }
          await Promise.all(running);
          expect(store.listEncoded(scope)).toEqual(storeOver(1 << 20).store.listEncoded(scope));
          for (const id of ids(store)) await store.delete(scope, id);
          expect(cache.sizeBytes).toBe(0);
        }),
        { numRuns: 25 },
      );
    });
  }

  test("two namespaces do not mix", async () => {
    await metadata.containers.create(scope, containerOf("web", { image: "one" }));
    await metadata.containers.create(other, containerOf("web", { image: "two" }));
    ids(metadata.containers);
    await metadata.containers.delete(other, "web");
    expect(ids(metadata.containers, "image==one")).toEqual(["web"]);
    expect(metadata.containers.listEncoded(other).length).toBe(0);
  });
});
