import { create } from "@bufbuild/protobuf";
import {
  type PodSandbox,
  type PodSandboxFilter,
  PodSandboxSchema,
  PodSandboxState,
} from "#gen/runtime/v1/api_pb.ts";
import type { Cri } from "../cri.ts";
import { matchesLabels } from "../label-selector.ts";
import type { Sandbox } from "../store/sandbox.ts";

/** All that match each part of the filter; an id may be the beginning of one. */
export function listPodSandbox(cri: Cri, filter: PodSandboxFilter | undefined): PodSandbox[] {
  const all = cri.sandboxes.list();
  if (filter === undefined) return all.map(podSandbox);
  const id = cri.sandboxes.find(filter.id)?.id ?? filter.id;
  return all
    .filter((sandbox) => id === "" || sandbox.id === id)
    .filter((sandbox) => filter.state === undefined || filter.state.state === stateOf(sandbox))
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector))
    .map(podSandbox);
}

function stateOf({ status }: Sandbox): PodSandboxState {
  return status.state === "ready" ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY;
}

function podSandbox(sandbox: Sandbox): PodSandbox {
  const { config, runtimeHandler } = sandbox.metadata;
  return create(PodSandboxSchema, {
    id: sandbox.id,
    ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    state: stateOf(sandbox),
    createdAt: sandbox.status.createdAt,
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler,
  });
}
