import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** Sandbox records of any containerd socket, from 1.7 on. */
export function remoteSandboxes(remote: Remote): SandboxStore {
  const rpc = remote.service(Store);
  return {
    async create(scope, sandbox) {
      const answer = await remote.answer(rpc.create({ sandbox }, callOptions(scope)));
      return required(answer.sandbox, "a sandbox");
    },
    async update(scope, sandbox, fieldPaths = []) {
      const request = { sandbox, fields: [...fieldPaths] };
      return required((await remote.answer(rpc.update(request, callOptions(scope)))).sandbox, "a sandbox");
    },
    async get(scope, sandboxId) {
      const answer = await remote.answer(rpc.get({ sandboxId }, callOptions(scope)));
      return required(answer.sandbox, "a sandbox");
    },
    async list(scope, filters = []) {
      return (await remote.answer(rpc.list({ filters: [...filters] }, callOptions(scope)))).list;
    },
    async delete(scope, sandboxId) {
      await remote.answer(rpc.delete({ sandboxId }, callOptions(scope)));
    },
  };
}
