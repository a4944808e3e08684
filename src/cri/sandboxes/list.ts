import { create } from "@bufbuild/protobuf";
import {
  type PodSandbox,
  type PodSandboxFilter,
  PodSandboxSchema,
  PodSandboxState,
} from "#gen/runtime/v1/api_pb.ts";
import type { Cri } from "../cri.ts";
import { matchesLabels } from "../label-selector.ts";
import { framed } from "../store/kept-bytes.ts";
import type { Sandbox } from "../store/sandbox.ts";

/** Of ListPodSandboxResponse and of StreamPodSandboxesResponse. */
const SANDBOXES_FIELD = 1;

/** All that match each part of the filter; an id may be the beginning of one. */
export function listPodSandbox(cri: Cri, filter: PodSandboxFilter | undefined): PodSandbox[] {
  return matching(cri, filter).map(podSandbox);
}

/** The same, each as the bytes of its field in an answer. */
export function listPodSandboxEncoded(cri: Cri, filter: PodSandboxFilter | undefined): Uint8Array[] {
  return matching(cri, filter).map((sandbox) =>
    sandbox.listed.get([sandbox.status, sandbox.metadata], () =>
      framed(SANDBOXES_FIELD, PodSandboxSchema, podSandbox(sandbox)),
    ),
  );
}

function matching(cri: Cri, filter: PodSandboxFilter | undefined): Sandbox[] {
  const all = cri.sandboxes.list();
  if (filter === undefined) return all;
  const id = cri.sandboxes.find(filter.id)?.id ?? filter.id;
  return all
    .filter((sandbox) => id === "" || sandbox.id === id)
    .filter((sandbox) => filter.state === undefined || filter.state.state === stateOf(sandbox))
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector));
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
