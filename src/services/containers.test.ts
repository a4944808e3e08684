import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { createHandlerContext } from "@connectrpc/connect";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  ContainerSchema,
  Containers,
  CreateContainerRequestSchema,
  GetContainerRequestSchema,
  ListContainersRequestSchema,
  UpdateContainerRequestSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { inProcessClient, scoped } from "../../test/support/in-process.ts";
import type { ContainerStore, EncodedContainers } from "../model/containers.ts";
import { fail } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { type PartedMessage, whole } from "../transport/grpc/parted-message.ts";
import { containersService } from "./containers.ts";

type Call = [method: string, namespace: string, lease: string | undefined, ...rest: unknown[]];

/** A store that remembers what it was asked and answers the same two containers. */
function fakeStore(): ContainerStore & { readonly calls: Call[] } {
  const calls: Call[] = [];
  const web = create(ContainerSchema, { id: "web", image: "nginx" });
  const db = create(ContainerSchema, { id: "db" });
  const called = <T>(method: string, scope: Scope, answer: T, ...rest: unknown[]): Promise<T> => {
    calls.push([method, scope.namespace, scope.lease, ...rest]);
    return Promise.resolve(answer);
  };
  return {
    calls,
    async get(scope, id) {
      await called("get", scope, undefined, id);
      if (id === web.id) return web;
      throw fail("NotFound", `container "${id}" in namespace "${scope.namespace}"`);
    },
    list: (scope, filters) => called("list", scope, [web, db], filters),
    create: (scope, container) => called("create", scope, container, container.id),
    update: (scope, container, paths) => called("update", scope, container, container.id, paths),
    delete: (scope, id) => called("delete", scope, undefined, id),
  };
}

const idsOf = (containers: readonly (Container | undefined)[]) =>
  containers.map((container) => container?.id);

describe("Containers", () => {
  test("each RPC reaches the store with the namespace and lease of the headers", async () => {
    const store = fakeStore();
    const client = inProcessClient(containersService({ containers: store }));
    const options = scoped("prod", "lease-1");
    const { container } = await client.get({ id: "web" }, options);
    expect(container?.image).toBe("nginx");
    expect(idsOf((await client.list({ filters: ["id==web"] }, options)).containers)).toEqual(["web", "db"]);
    const streamed: (string | undefined)[] = [];
    for await (const message of client.listStream({ filters: ["a"] }, options)) {
      streamed.push(message.container?.id);
    }
    expect(streamed).toEqual(["web", "db"]);
    expect((await client.create({ container: { id: "new" } }, options)).container?.id).toBe("new");
    const update = { container: { id: "web" }, updateMask: { paths: ["labels.a"] } };
    expect((await client.update(update, options)).container?.id).toBe("web");
    await client.update({ container: { id: "web" } }, options);
    await client.delete({ id: "web" }, options);
    expect(store.calls).toEqual([
      ["get", "prod", "lease-1", "web"],
      ["list", "prod", "lease-1", ["id==web"]],
      ["list", "prod", "lease-1", ["a"]],
      ["create", "prod", "lease-1", "new"],
      ["update", "prod", "lease-1", "web", ["labels.a"]],
      ["update", "prod", "lease-1", "web", undefined],
      ["delete", "prod", "lease-1", "web"],
    ]);
  });

  test("a store's error keeps its code and words", async () => {
    const client = inProcessClient(containersService({ containers: fakeStore() }));
    await expect(client.get({ id: "nope" }, scoped("prod"))).rejects.toThrow(
      '[not_found] container "nope" in namespace "prod": not found',
    );
  });

  test("an update without an id is refused before the namespace is asked for, as in containerd", async () => {
    const client = inProcessClient(containersService({ containers: fakeStore() }));
    for (const request of [{}, { container: {} }]) {
      await expect(client.update(request)).rejects.toThrow("[invalid_argument] Container.ID required");
    }
  });

  test("a create without a container reaches the store's validation as an empty one", async () => {
    const store = fakeStore();
    await inProcessClient(containersService({ containers: store })).create({}, scoped("prod"));
    expect(store.calls).toEqual([["create", "prod", undefined, ""]]);
  });

  test("every RPC needs a valid namespace", async () => {
    const store = fakeStore();
    const client = inProcessClient(containersService({ containers: store }));
    const required = "[failed_precondition] namespace is required: failed precondition";
    await expect(client.get({ id: "web" })).rejects.toThrow(required);
    await expect(client.list({})).rejects.toThrow(required);
    await expect(client.listStream({})[Symbol.asyncIterator]().next()).rejects.toThrow(required);
    await expect(client.create({ container: { id: "a" } })).rejects.toThrow(required);
    await expect(client.update({ container: { id: "a" } })).rejects.toThrow(required);
    await expect(client.delete({ id: "a" })).rejects.toThrow(required);
    await expect(client.get({ id: "web" }, scoped("../etc"))).rejects.toThrow(
      '[invalid_argument] namespace validation: identifier "../etc" must match',
    );
    expect(store.calls).toEqual([]);
  });

  test("of a namespace that a Go client sent twice the newest counts", async () => {
    const store = fakeStore();
    const headers = new Headers([
      ["containerd-namespace", "new"],
      ["containerd-namespace", "old"],
    ]);
    await inProcessClient(containersService({ containers: store })).get({ id: "web" }, { headers });
    expect(store.calls).toEqual([["get", "new", undefined, "web"]]);
  });

  test("the encoded variants hand out the store's bytes", async () => {
    const encoded: EncodedContainers = {
      getEncoded: (scope, id) => Buffer.from(`get ${scope.namespace} ${id}`),
      listEncoded: (scope, filters) => [Buffer.from(`list ${scope.namespace} `), Buffer.from(`${filters}`)],
      createEncoded: async (scope, { id }) => Buffer.from(`create ${scope.namespace} ${id}`),
      updateEncoded: async (scope, { id }, paths) =>
        Buffer.from(`update ${scope.namespace} ${id} ${paths?.join()}`),
    };
    const binding = containersService({ containers: fakeStore(), encoded });
    const context = createHandlerContext({
      service: Containers,
      method: Containers.method.get,
      protocolName: "grpc",
      requestMethod: "POST",
      url: "http://localhost/",
      requestHeader: { "containerd-namespace": "prod" },
    });
    const get = create(GetContainerRequestSchema, { id: "web" });
    const list = create(ListContainersRequestSchema, { filters: ["a", "b"] });
    expect(String(binding.encoded?.get?.(get, context))).toBe("get prod web");
    const listed = binding.encoded?.list?.(list, context) as PartedMessage;
    expect(String(whole(listed))).toBe("list prod a,b");
    expect(
      [...((binding.encoded?.listStream?.(list, context) ?? []) as Iterable<Uint8Array>)].map(String),
    ).toEqual(["list prod ", "a,b"]);
    const creation = create(CreateContainerRequestSchema, { container: { id: "web" } });
    const change = create(UpdateContainerRequestSchema, {
      container: { id: "web" },
      updateMask: { paths: ["a"] },
    });
    expect(String(await binding.encoded?.create?.(creation, context))).toBe("create prod web");
    expect(String(await binding.encoded?.update?.(change, context))).toBe("update prod web a");
    expect(() => binding.encoded?.update?.(create(UpdateContainerRequestSchema), context)).toThrow(
      "Container.ID required",
    );
    const { raw } = binding;
    const bytesOf = {
      get: toBinary(GetContainerRequestSchema, get),
      create: toBinary(CreateContainerRequestSchema, creation),
      update: toBinary(UpdateContainerRequestSchema, change),
    };
    expect(String(raw?.get?.(bytesOf.get, context))).toBe("get prod web");
    expect(String(await raw?.create?.(bytesOf.create, context))).toBe("create prod web");
    expect(String(await raw?.update?.(bytesOf.update, context))).toBe("update prod web a");
    const unmasked = toBinary(UpdateContainerRequestSchema, { ...change, updateMask: undefined });
    expect(String(await raw?.update?.(unmasked, context))).toBe("update prod web ");
    // Malformed, uncommon, or to be refused in other words.
    for (const odd of [new Uint8Array(0), Uint8Array.of(0x0a, 3, 0x0a, 1, 0xff), Uint8Array.of(0x0a, 9)]) {
      expect(raw?.get?.(odd, context)).toBeUndefined();
      expect(raw?.create?.(odd, context)).toBeUndefined();
      expect(raw?.update?.(odd, context)).toBeUndefined();
    }
    for (const tail of [
      [0x10, 1],
      [0x12, 2, 0x08, 1],
      [0x12, 0],
      [0x12, 9],
      [0x1a, 0],
      [0x12, 3, 0x0a, 1, 0xff],
    ])
      expect(raw?.update?.(Buffer.concat([bytesOf.create, Buffer.from(tail)]), context)).toBeUndefined();
  });
});
