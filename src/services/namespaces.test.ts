import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { inProcessClient } from "../../test/support/in-process.ts";
import { fail } from "../model/errors.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import { namespacesService } from "./namespaces.ts";

function fakeStore(): NamespaceStore & { readonly calls: unknown[][] } {
  const calls: unknown[][] = [];
  const prod = create(NamespaceSchema, { name: "prod", labels: { a: "b" } });
  return {
    calls,
    get: async (name) => {
      calls.push(["get", name]);
      return prod;
    },
    list: async () => [prod],
    create: async (namespace) => {
      calls.push(["create", namespace.name, namespace.labels]);
      return namespace;
    },
    update: async (namespace, paths) => {
      calls.push(["update", namespace.name, namespace.labels, paths]);
      return namespace;
    },
    delete: async (name) => {
      calls.push(["delete", name]);
      throw fail("NotFound", `namespace "${name}"`);
    },
  };
}

describe("Namespaces", () => {
  test("needs no namespace header; each RPC reaches the store", async () => {
    const store = fakeStore();
    const client = inProcessClient(namespacesService({ namespaces: store }));
    expect((await client.get({ name: "prod" })).namespace?.labels).toEqual({ a: "b" });
    expect((await client.list({ filter: "name==nothing" })).namespaces.map(({ name }) => name)).toEqual([
      "prod",
    ]);
    const namespace = { name: "new", labels: { c: "d" } };
    expect((await client.create({ namespace })).namespace).toMatchObject(namespace);
    expect((await client.update({ namespace })).namespace).toBeUndefined();
    await client.update({ namespace, updateMask: { paths: ["labels.c"] } });
    await expect(client.delete({ name: "gone" })).rejects.toThrow('[not_found] namespace "gone": not found');
    await client.create({});
    expect(store.calls).toEqual([
      ["get", "prod"],
      ["create", "new", { c: "d" }],
      ["update", "new", { c: "d" }, undefined],
      ["update", "new", { c: "d" }, ["labels.c"]],
      ["delete", "gone"],
      ["create", "", {}],
    ]);
  });
});
