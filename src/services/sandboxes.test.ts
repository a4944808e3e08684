import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { inProcessClient, scoped } from "../../test/support/in-process.ts";
import { Exchange } from "../events/exchange.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import { sandboxControllerService, sandboxStoreService } from "./sandboxes.ts";

function fakeStore(): SandboxStore & { readonly calls: unknown[][] } {
  const calls: unknown[][] = [];
  const pod = create(SandboxSchema, { sandboxId: "pod" });
  return {
    calls,
    create: async (scope, sandbox) => {
      calls.push(["create", scope.namespace, sandbox.sandboxId]);
      return pod;
    },
    update: async (scope, sandbox, paths) => {
      calls.push(["update", scope.namespace, sandbox.sandboxId, paths]);
      return pod;
    },
    get: async (scope, id) => {
      calls.push(["get", scope.namespace, id]);
      return pod;
    },
    list: async (scope, filters) => {
      calls.push(["list", scope.namespace, filters]);
      return [pod, pod];
    },
    delete: async (scope, id) => void calls.push(["delete", scope.namespace, id]),
  };
}

describe("sandbox Store", () => {
  test("each RPC reaches the store with the namespace of the headers", async () => {
    const store = fakeStore();
    const client = inProcessClient(sandboxStoreService({ sandboxes: store }));
    const options = scoped("k8s.io");
    expect((await client.create({ sandbox: { sandboxId: "pod" } }, options)).sandbox?.sandboxId).toBe("pod");
    const update = { sandbox: { sandboxId: "pod" }, fields: ["labels"] };
    expect((await client.update(update, options)).sandbox?.sandboxId).toBe("pod");
    expect((await client.get({ sandboxId: "pod" }, options)).sandbox?.sandboxId).toBe("pod");
    expect((await client.list({ filters: ["id==pod"] }, options)).list.length).toBe(2);
    await client.delete({ sandboxId: "pod" }, options);
    await client.create({}, options);
    expect(store.calls).toEqual([
      ["create", "k8s.io", "pod"],
      ["update", "k8s.io", "pod", ["labels"]],
      ["get", "k8s.io", "pod"],
      ["list", "k8s.io", ["id==pod"]],
      ["delete", "k8s.io", "pod"],
      ["create", "k8s.io", ""],
    ]);
  });

  test("every RPC needs a namespace", async () => {
    const client = inProcessClient(sandboxStoreService({ sandboxes: fakeStore() }));
    for (const call of [
      () => client.create({}),
      () => client.update({}),
      () => client.get({}),
      () => client.list({}),
      () => client.delete({}),
    ]) {
      await expect(call()).rejects.toThrow(
        "[failed_precondition] namespace is required: failed precondition",
      );
    }
  });
});

test("a sandbox controller is asked for by its name", async () => {
  const controller = async () => undefined;
  const client = inProcessClient(sandboxControllerService({ controller, publisher: new Exchange() }));
  const call = (sandboxer: string) => client.status({ sandboxId: "a", sandboxer }, scoped("k8s.io"));
  await expect(call("")).rejects.toThrow(
    "[invalid_argument] invalid argument: sandbox controller name can not",
  );
  await expect(call("none")).rejects.toThrow(
    "[not_found] not found: failed to get sandbox controller by none",
  );
});
