import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import type { Differ } from "../model/diff.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** A differ behind a gRPC socket (containerd `core/diff/proxy`). */
export function remoteDiffer(remote: Remote): Differ {
  const rpc = remote.service(Diff);
  return {
    async apply(scope, layer, mounts, { payloads = {}, syncFs = false } = {}) {
      const request = { diff: layer, mounts: [...mounts], payloads: { ...payloads }, syncFs };
      return required((await remote.answer(rpc.apply(request, callOptions(scope)))).applied, "a descriptor");
    },
    async compare(scope, lower, upper, options = {}) {
      const { mediaType = "", ref = "", labels = {}, sourceDateEpoch } = options;
      const request = { left: [...lower], right: [...upper], mediaType, ref, labels: { ...labels } };
      const call = rpc.diff({ ...request, ...(sourceDateEpoch && { sourceDateEpoch }) }, callOptions(scope));
      return required((await remote.answer(call)).diff, "a descriptor");
    },
  };
}
