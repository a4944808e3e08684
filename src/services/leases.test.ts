import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { LeaseSchema, ResourceSchema } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { inProcessClient, scoped } from "../../test/support/in-process.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { Scope } from "../model/scope.ts";
import { leasesService } from "./leases.ts";

function fakeStore(): LeaseStore & { readonly calls: unknown[][] } {
  const calls: unknown[][] = [];
  const called = async (method: string, scope: Scope, ...rest: unknown[]): Promise<void> => {
    calls.push([method, scope.namespace, ...rest]);
  };
  const lease = create(LeaseSchema, { id: "l", labels: { a: "b" }, createdAt: { seconds: 3n } });
  return {
    calls,
    create: async (scope, newLease) => {
      await called("create", scope, newLease);
      return lease;
    },
    delete: (scope, id, options) => called("delete", scope, id, options),
    list: async (scope, filters) => {
      await called("list", scope, filters);
      return [lease];
    },
    addResource: (scope, id, { id: resource, type }) => called("addResource", scope, id, resource, type),
    deleteResource: (scope, id, { id: resource, type }) =>
      called("deleteResource", scope, id, resource, type),
    listResources: async (scope, id) => {
      await called("listResources", scope, id);
      return [create(ResourceSchema, { id: "sha256:x", type: "content" })];
    },
  };
}

describe("Leases", () => {
  test("each RPC reaches the store with the namespace of the headers", async () => {
    const store = fakeStore();
    const client = inProcessClient(leasesService({ leases: store }));
    const options = scoped("prod");
    expect((await client.create({ id: "l", labels: { a: "b" } }, options)).lease?.createdAt?.seconds).toBe(
      3n,
    );
    await client.create({}, options);
    await client.delete({ id: "l", sync: true }, options);
    expect((await client.list({ filters: ["id==l"] }, options)).leases.map(({ id }) => id)).toEqual(["l"]);
    const resource = { id: "s1", type: "snapshots/overlayfs" };
    await client.addResource({ id: "l", resource }, options);
    await client.deleteResource({ id: "l", resource }, options);
    await client.addResource({ id: "l" }, options);
    expect((await client.listResources({ id: "l" }, options)).resources.map(({ type }) => type)).toEqual([
      "content",
    ]);
    expect(store.calls).toEqual([
      ["create", "prod", { id: "l", labels: { a: "b" } }],
      ["create", "prod", { id: undefined, labels: {} }],
      ["delete", "prod", "l", { sync: true }],
      ["list", "prod", ["id==l"]],
      ["addResource", "prod", "l", "s1", "snapshots/overlayfs"],
      ["deleteResource", "prod", "l", "s1", "snapshots/overlayfs"],
      ["addResource", "prod", "l", "", ""],
      ["listResources", "prod", "l"],
    ]);
  });

  test("every RPC needs a namespace", async () => {
    const store = fakeStore();
    const client = inProcessClient(leasesService({ leases: store }));
    for (const call of [
      () => client.create({}),
      () => client.delete({}),
      () => client.list({}),
      () => client.addResource({}),
      () => client.deleteResource({}),
      () => client.listResources({}),
    ]) {
      await expect(call()).rejects.toThrow(
        "[failed_precondition] namespace is required: failed precondition",
      );
    }
    expect(store.calls).toEqual([]);
  });
});
