import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { RuntimeService } from "#gen/runtime/v1/api_pb.ts";
import { joined } from "../lib/wire.ts";
import { bind, type EncodedImpl, type ServiceBinding } from "../transport/registry.ts";
import { batches } from "./batches.ts";
import type { CriCalls } from "./calls.ts";
import { KeptAnswer } from "./store/kept-bytes.ts";
import type { Caller } from "./store/operations.ts";

export interface RuntimeServiceDependencies {
  /** Loads the CRI layer at its first call, and resolves when the pods of an earlier daemon are known. */
  readonly calls: () => Promise<CriCalls>;
  readonly version: string;
}

/** Of the CRI, as the kubelet asks for it; the API's own version is `v1`. */
const KUBE_API_VERSION = "0.1.0";

/** runtime.v1.RuntimeService: decode, call, answer. What is not built answers Unimplemented. */
export function runtimeService(
  dependencies: RuntimeServiceDependencies,
): ServiceBinding<typeof RuntimeService> {
  return bind(RuntimeService, implementation(dependencies), encoded(dependencies));
}

function implementation({
  calls,
  version,
}: RuntimeServiceDependencies): Partial<ServiceImpl<typeof RuntimeService>> {
  return {
    version() {
      // The kubelet and crictl look for the name.
      const runtime = { runtimeName: "containerd", runtimeVersion: version, runtimeApiVersion: "v1" };
      return { version: KUBE_API_VERSION, ...runtime };
    },
    status: async ({ verbose }) => (await calls()).status(verbose),
    runtimeConfig: async () => ({ linux: { cgroupDriver: (await calls()).cgroupDriver() } }),

    async updateRuntimeConfig({ runtimeConfig }) {
      await (await calls()).updateRuntimeConfig(runtimeConfig?.networkConfig?.podCidr ?? "");
      return {};
    },
    async updatePodSandboxResources(request, context) {
      await (await calls()).updatePodSandboxResources(request, context.signal);
      return {};
    },
    async checkpointContainer(request, context) {
      await (await calls()).checkpointContainer(request, context.signal);
      return {};
    },

    async runPodSandbox(request, context) {
      return { podSandboxId: await (await calls()).runPodSandbox(request, callerOf(context)) };
    },
    async stopPodSandbox({ podSandboxId }, context) {
      await (await calls()).stopPodSandbox(podSandboxId, context.signal);
      return {};
    },
    async removePodSandbox({ podSandboxId }, context) {
      await (await calls()).removePodSandbox(podSandboxId, context.signal);
      return {};
    },
    podSandboxStatus: async ({ podSandboxId, verbose }) =>
      (await calls()).podSandboxStatus(podSandboxId, verbose),
    listPodSandbox: async ({ filter }) => ({ items: (await calls()).listPodSandbox(filter) }),

    async createContainer(request, context) {
      return { containerId: await (await calls()).createContainer(request, callerOf(context)) };
    },
    async startContainer({ containerId }, context) {
      await (await calls()).startContainer(containerId, context.signal);
      return {};
    },
    async stopContainer({ containerId, timeout }, context) {
      await (await calls()).stopContainer(containerId, Number(timeout), context.signal);
      return {};
    },
    async removeContainer({ containerId }, context) {
      await (await calls()).removeContainer(containerId, context.signal);
      return {};
    },
    containerStatus: async ({ containerId, verbose }) =>
      (await calls()).containerStatus(containerId, verbose),
    listContainers: async ({ filter }) => ({ containers: (await calls()).listContainers(filter) }),
    async updateContainerResources(request, context) {
      await (await calls()).updateContainerResources(request, context.signal);
      return {};
    },
    async reopenContainerLog({ containerId }) {
      await (await calls()).reopenContainerLog(containerId);
      return {};
    },

    execSync: async (request, context) => (await calls()).execSync(request, context.signal),
    exec: async (request) => ({ url: await (await calls()).execUrl(request) }),
    attach: async (request) => ({ url: await (await calls()).attachUrl(request) }),
    portForward: async (request) => ({ url: await (await calls()).portForwardUrl(request) }),

    containerStats: async ({ containerId }) => ({ stats: await (await calls()).containerStats(containerId) }),
    listContainerStats: async ({ filter }) => ({ stats: await (await calls()).listContainerStats(filter) }),
    podSandboxStats: async ({ podSandboxId }) => ({
      stats: await (await calls()).podSandboxStats(podSandboxId),
    }),
    listPodSandboxStats: async ({ filter }) => ({ stats: await (await calls()).listPodSandboxStats(filter) }),
    async *streamContainerStats({ filter }) {
      for (const containerStats of batches(await (await calls()).listContainerStats(filter)))
        yield { containerStats };
    },
    async *streamPodSandboxStats({ filter }) {
      for (const podSandboxStats of batches(await (await calls()).listPodSandboxStats(filter)))
        yield { podSandboxStats };
    },
    listMetricDescriptors: async () => ({ descriptors: (await calls()).listMetricDescriptors() }),
    listPodSandboxMetrics: async () => ({ podMetrics: await (await calls()).listPodSandboxMetrics() }),
    async *streamPodSandboxMetrics() {
      for (const podSandboxMetrics of batches(await (await calls()).listPodSandboxMetrics()))
        yield { podSandboxMetrics };
    },

    async *getContainerEvents(_request, context) {
      yield* (await calls()).events(context.signal);
    },
    async *streamPodSandboxes({ filter }) {
      for (const podSandboxes of batches((await calls()).listPodSandbox(filter))) yield { podSandboxes };
    },
    async *streamContainers({ filter }) {
      for (const containers of batches((await calls()).listContainers(filter))) yield { containers };
    },
  };
}

/** What the kubelet asks for all the time. */
function encoded({ calls }: RuntimeServiceDependencies): EncodedImpl<typeof RuntimeService> {
  const [pods, containers] = [new KeptAnswer(), new KeptAnswer()];
  // Once the layer is loaded, a list is answered within its own turn.
  let loaded: CriCalls | undefined;
  const answer = (list: (calls: CriCalls) => Uint8Array): Uint8Array | Promise<Uint8Array> => {
    if (loaded !== undefined) return list(loaded);
    return calls().then((opened) => {
      loaded = opened;
      return list(opened);
    });
  };
  return {
    listPodSandbox: ({ filter }) =>
      answer((cri) => {
        const fields = cri.listPodSandboxEncoded(filter);
        return filter === undefined ? pods.get(fields) : joined(fields);
      }),
    listContainers: ({ filter }) =>
      answer((cri) => {
        const fields = cri.listContainersEncoded(filter);
        return filter === undefined ? containers.get(fields) : joined(fields);
      }),
    listContainerStats: async ({ filter }) => joined(await (await calls()).listContainerStatsEncoded(filter)),
    async *streamPodSandboxes({ filter }) {
      for (const batch of batches((await calls()).listPodSandboxEncoded(filter))) yield joined(batch);
    },
    async *streamContainers({ filter }) {
      for (const batch of batches((await calls()).listContainersEncoded(filter))) yield joined(batch);
    },
    async *streamContainerStats({ filter }) {
      for (const batch of batches(await (await calls()).listContainerStatsEncoded(filter)))
        yield joined(batch);
    },
  };
}

function callerOf(context: HandlerContext): Caller {
  return {
    signal: context.signal,
    get timeoutMs() {
      return context.timeoutMs();
    },
  };
}
