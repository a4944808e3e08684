import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions, Transport } from "@connectrpc/connect";
import {
  type AuthConfig,
  CgroupDriver,
  type Container,
  type ContainerConfig,
  type ContainerEventResponse,
  type ContainerFilterSchema,
  type ContainerStatus,
  type ContainerStatusResponse,
  type ExecSyncResponse,
  type Image,
  ImageService,
  type ImageSpecSchema,
  type LinuxContainerResources,
  type PodSandbox,
  type PodSandboxConfig,
  type PodSandboxFilterSchema,
  type PodSandboxStatus,
  RuntimeService,
  type StatusResponse,
  type VersionResponse,
} from "#gen/runtime/v1/api_pb.ts";
import { Remote, required } from "./remote.ts";

/**
 * A CRI runtime and its images behind one unix socket: bunkerd's, containerd's, CRI-O's. Every call throws BunkerdError with the server's code
 * and words, or Unavailable.
 */
export interface CriClient {
  readonly address: string;
  version(): Promise<VersionResponse>;
  status(verbose?: boolean): Promise<StatusResponse>;
  /** @throws Unimplemented by runtimes that leave the driver to the kubelet's configuration */
  cgroupDriver(): Promise<"cgroupfs" | "systemd">;
  runPodSandbox(config: PodSandboxConfig, runtimeHandler: string, signal?: AbortSignal): Promise<string>;
  stopPodSandbox(id: string): Promise<void>;
  removePodSandbox(id: string): Promise<void>;
  podSandboxStatus(id: string): Promise<PodSandboxStatus>;
  listPodSandbox(filter?: MessageInitShape<typeof PodSandboxFilterSchema>): Promise<PodSandbox[]>;
  createContainer(
    sandboxId: string,
    config: ContainerConfig,
    sandbox: PodSandboxConfig,
    signal?: AbortSignal,
  ): Promise<string>;
  startContainer(id: string): Promise<void>;
  /** Answers when the container has ended. @param timeoutSeconds between the stop signal and SIGKILL */
  stopContainer(id: string, timeoutSeconds: number): Promise<void>;
  removeContainer(id: string): Promise<void>;
  listContainers(filter?: MessageInitShape<typeof ContainerFilterSchema>): Promise<Container[]>;
  containerStatus(id: string): Promise<ContainerStatus>;
  /** With the runtime's own facts, which differ from runtime to runtime. */
  containerInfo(id: string): Promise<ContainerStatusResponse>;
  updateContainerResources(id: string, linux: LinuxContainerResources): Promise<void>;
  reopenContainerLog(id: string): Promise<void>;
  /** @param timeoutSeconds 0: none. @throws DeadlineExceeded (containerd), Unknown or other of the runtime's choice */
  execSync(id: string, command: readonly string[], timeoutSeconds: number): Promise<ExecSyncResponse>;
  /** The URL of the stream. */
  exec(id: string, command: readonly string[], options: StreamOptions): Promise<string>;
  attach(id: string, options: StreamOptions): Promise<string>;
  portForward(sandboxId: string, port: number): Promise<string>;
  /** Until the signal aborts. @throws Unimplemented by older runtimes */
  containerEvents(signal: AbortSignal): AsyncIterable<ContainerEventResponse>;
  imageStatus(image: string): Promise<Image | undefined>;
  /** The image's reference for {@link createContainer}. */
  pullImage(
    image: MessageInitShape<typeof ImageSpecSchema>,
    auth: AuthConfig | undefined,
    sandbox: PodSandboxConfig | undefined,
    signal?: AbortSignal,
  ): Promise<string>;
  close(): void;
}

export interface StreamOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

/**
 * Connects at the first call. @param address path of the socket, with or without `unix://`
 * @param transport to the server, if there is another way than its socket
 */
export function criClient(address: string, transport?: Transport): CriClient {
  const remote = new Remote(address, transport);
  return {
    address: remote.address,
    ...runtimeCalls(remote),
    ...imageCalls(remote),
    close: () => remote.close(),
  };
}

type ImageCall = "imageStatus" | "pullImage";

function runtimeCalls(remote: Remote): Omit<CriClient, ImageCall | "address" | "close"> {
  const rpc = remote.service(RuntimeService);
  return {
    ...sandboxCalls(remote),
    ...containerCalls(remote),
    ...streamCalls(remote),
    version: () => remote.answer(rpc.version({ version: "v1" })),
    status: (verbose = false) => remote.answer(rpc.status({ verbose })),
    async cgroupDriver() {
      const { linux } = await remote.answer(rpc.runtimeConfig({}));
      return linux?.cgroupDriver === CgroupDriver.SYSTEMD ? "systemd" : "cgroupfs";
    },
  };
}

type SandboxCall =
  | "runPodSandbox"
  | "stopPodSandbox"
  | "removePodSandbox"
  | "podSandboxStatus"
  | "listPodSandbox";

function sandboxCalls(remote: Remote): Pick<CriClient, SandboxCall> {
  const rpc = remote.service(RuntimeService);
  return {
    async runPodSandbox(config, runtimeHandler, signal) {
      return (await remote.answer(rpc.runPodSandbox({ config, runtimeHandler }, withSignal(signal))))
        .podSandboxId;
    },
    async stopPodSandbox(podSandboxId) {
      await remote.answer(rpc.stopPodSandbox({ podSandboxId }));
    },
    async removePodSandbox(podSandboxId) {
      await remote.answer(rpc.removePodSandbox({ podSandboxId }));
    },
    async podSandboxStatus(podSandboxId) {
      const { status } = await remote.answer(rpc.podSandboxStatus({ podSandboxId }));
      return required(status, "a status of the sandbox");
    },
    async listPodSandbox(filter) {
      return (await remote.answer(rpc.listPodSandbox(filter === undefined ? {} : { filter }))).items;
    },
  };
}

type ContainerCall =
  | "createContainer"
  | "startContainer"
  | "stopContainer"
  | "removeContainer"
  | "listContainers"
  | "containerStatus"
  | "containerInfo"
  | "updateContainerResources"
  | "reopenContainerLog"
  | "containerEvents";

function containerCalls(remote: Remote): Pick<CriClient, ContainerCall> {
  const rpc = remote.service(RuntimeService);
  return {
    async createContainer(podSandboxId, config, sandboxConfig, signal) {
      const request = { podSandboxId, config, sandboxConfig };
      const answer = await remote.answer(rpc.createContainer(request, withSignal(signal)));
      return answer.containerId;
    },
    async startContainer(containerId) {
      await remote.answer(rpc.startContainer({ containerId }));
    },
    async stopContainer(containerId, timeoutSeconds) {
      await remote.answer(rpc.stopContainer({ containerId, timeout: BigInt(timeoutSeconds) }));
    },
    async removeContainer(containerId) {
      await remote.answer(rpc.removeContainer({ containerId }));
    },
    async listContainers(filter) {
      return (await remote.answer(rpc.listContainers(filter === undefined ? {} : { filter }))).containers;
    },
    async containerStatus(containerId) {
      const { status } = await remote.answer(rpc.containerStatus({ containerId }));
      return required(status, "a status of the container");
    },
    containerInfo: (containerId) => remote.answer(rpc.containerStatus({ containerId, verbose: true })),
    async updateContainerResources(containerId, linux) {
      await remote.answer(rpc.updateContainerResources({ containerId, linux }));
    },
    async reopenContainerLog(containerId) {
      await remote.answer(rpc.reopenContainerLog({ containerId }));
    },
    containerEvents: (signal) => remote.messages(rpc.getContainerEvents({}, { signal })),
  };
}

function streamCalls(remote: Remote): Pick<CriClient, "execSync" | "exec" | "attach" | "portForward"> {
  const rpc = remote.service(RuntimeService);
  return {
    execSync(containerId, cmd, timeoutSeconds) {
      return remote.answer(rpc.execSync({ containerId, cmd: [...cmd], timeout: BigInt(timeoutSeconds) }));
    },
    async exec(containerId, cmd, options) {
      return (await remote.answer(rpc.exec({ containerId, cmd: [...cmd], ...options }))).url;
    },
    async attach(containerId, options) {
      return (await remote.answer(rpc.attach({ containerId, ...options }))).url;
    },
    async portForward(podSandboxId, port) {
      return (await remote.answer(rpc.portForward({ podSandboxId, port: [port] }))).url;
    },
  };
}

function imageCalls(remote: Remote): Pick<CriClient, ImageCall> {
  const rpc = remote.service(ImageService);
  return {
    async imageStatus(image) {
      return (await remote.answer(rpc.imageStatus({ image: { image } }))).image;
    },
    async pullImage(image, auth, sandboxConfig, signal) {
      const request = {
        image,
        ...(auth === undefined ? {} : { auth }),
        ...(sandboxConfig === undefined ? {} : { sandboxConfig }),
      };
      return (await remote.answer(rpc.pullImage(request, withSignal(signal)))).imageRef;
    },
  };
}

function withSignal(signal: AbortSignal | undefined): CallOptions {
  return signal === undefined ? {} : { signal };
}
