/**
 * A client of bunkerd's or containerd's unix socket, `import … from "bunkerd/client"`. What a program needs beside the
 * client is exported from here too: this file is the package's only door.
 */
import type { DescService } from "@bufbuild/protobuf";
import type { Client as RpcClient } from "@connectrpc/connect";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Version, type VersionResponse } from "#gen/containerd/services/version/v1/version_pb.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore } from "../model/containers.ts";
import type { ContentStore } from "../model/content.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import { remoteContainers } from "./containers.ts";
import { remoteContent } from "./content.ts";
import { type RemoteEvents, remoteEvents } from "./events.ts";
import { type RemoteIntrospection, remoteIntrospection } from "./introspection.ts";
import { remoteLeases } from "./leases.ts";
import { remoteNamespaces } from "./namespaces.ts";
import { type ContainerOption, type ContainerStores, newContainer } from "./new-container.ts";
import { Remote } from "./remote.ts";
import { remoteSandboxes } from "./sandboxes.ts";

export type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
export { ContainerSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
export type { Lease } from "#gen/containerd/services/leases/v1/leases_pb.ts";
export type { Namespace } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
export type { Envelope } from "#gen/containerd/types/event_pb.ts";
export type { Sandbox } from "#gen/containerd/types/sandbox_pb.ts";
export type { ContainerStore } from "../model/containers.ts";
export type { ContentStore } from "../model/content.ts";
export { BunkerdError, type ErrorCode, isError } from "../model/errors.ts";
export type { LeaseStore, NewLease } from "../model/leases.ts";
export type { NamespaceStore } from "../model/namespaces.ts";
export type { SandboxStore } from "../model/sandboxes.ts";
export type { Scope } from "../model/scope.ts";
export type { RemoteEvents } from "./events.ts";
export type { RemoteIntrospection } from "./introspection.ts";
export {
  type ContainerOption,
  type ContainerStores,
  newContainer,
  type OptionContext,
  withAdditionalLabels,
  withExtension,
  withImageName,
  withLabels,
  withRuntime,
  withSandbox,
  withSnapshot,
  withSnapshotter,
  withSpec,
} from "./new-container.ts";
export { packSpec, SPEC_TYPE_URL, unpackSpec } from "./spec.ts";

export interface ClientOptions {
  /** Told of what a call must not fail for, such as a lease that could not be released. */
  readonly logger?: Logger;
}

/** One connection to one socket. Every call throws BunkerdError: the server's code and words, or Unavailable. */
export class Client {
  readonly #remote: Remote;
  readonly #stores: ContainerStores;

  /** Connects at the first call. @param address path of the socket, with or without `unix://` */
  constructor(address: string, options: ClientOptions = {}) {
    this.#remote = new Remote(address);
    this.#stores = { containers: this.containers(), leases: this.leases(), ...options };
  }

  /** A client whose server has answered. @throws Unavailable if there is none */
  static async connect(address: string, options: ClientOptions = {}): Promise<Client> {
    const client = new Client(address, options);
    try {
      await client.version();
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  containers(): ContainerStore {
    return remoteContainers(this.#remote);
  }

  namespaces(): NamespaceStore {
    return remoteNamespaces(this.#remote);
  }

  leases(): LeaseStore {
    return remoteLeases(this.#remote);
  }

  sandboxes(): SandboxStore {
    return remoteSandboxes(this.#remote);
  }

  events(): RemoteEvents {
    return remoteEvents(this.#remote);
  }

  content(): ContentStore {
    return remoteContent(this.#remote);
  }

  introspection(): RemoteIntrospection {
    return remoteIntrospection(this.#remote);
  }

  version(): Promise<VersionResponse> {
    return this.#remote.answer(this.#remote.service(Version).version({}));
  }

  /** Creates a container from options, under a lease. @throws AlreadyExists, InvalidArgument, what an option throws */
  newContainer(scope: Scope, id: string, ...options: readonly ContainerOption[]): Promise<Container> {
    return newContainer(this.#stores, scope, id, options);
  }

  /** Any other service by its descriptor, as a Connect client: its errors are ConnectError, headers are the caller's. */
  service<S extends DescService>(service: S): RpcClient<S> {
    return this.#remote.service(service);
  }

  /** Closes the connection; calls under way fail. A later call opens a new one. */
  close(): void {
    this.#remote.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
