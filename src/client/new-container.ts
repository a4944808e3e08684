/** Making a container from options, under a lease. Source of the rules: containerd `client/client.go`, `client/lease.go`, `client/container_opts.go`. */
import { create } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  Container_RuntimeSchema,
  ContainerSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore } from "../model/containers.ts";
import { fail, isError, messageOf } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import { LABEL_GC_EXPIRE } from "../model/labels.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { Scope } from "../model/scope.ts";
import { packSpec } from "./spec.ts";

/** What `newContainer` needs: in-process stores as well as a {@link Client}'s. Options may ask for more. */
export interface ContainerStores {
  readonly containers: ContainerStore;
  readonly leases: LeaseStore;
  /** Told of a lease that could not be released; it expires by itself. */
  readonly logger?: Logger;
}

/** Where an option may look things up or make them. */
export interface OptionContext<Stores extends ContainerStores = ContainerStores> {
  readonly stores: Stores;
  /** Carries the lease: what an option makes in it is kept until the container refers to it. */
  readonly scope: Scope;
}

/** One step of building a container record. Steps run in order, each after the one before. */
export type ContainerOption<Stores extends ContainerStores = ContainerStores> = (
  context: OptionContext<Stores>,
  container: Container,
) => void | Promise<void>;

/** containerd's `defaults.DefaultRuntime` of Linux. */
export const DEFAULT_RUNTIME = "io.containerd.runc.v2";

const LEASE_LIFETIME_MS = 24 * 60 * 60 * 1000;

/**
 * Creates a container: takes a lease (unless the scope has one) so that what the options make is not collected meanwhile,
 * applies the options in order, stores the record, releases the lease, also on failure.
 * @throws what an option throws, or the store: AlreadyExists, InvalidArgument
 */
export async function newContainer<Stores extends ContainerStores>(
  stores: Stores,
  scope: Scope,
  id: string,
  options: readonly ContainerOption<Stores>[],
): Promise<Container> {
  if (scope.lease !== undefined) return build(stores, scope, id, options);
  const lease = await stores.leases.create(scope, { labels: { [LABEL_GC_EXPIRE]: leaseEnd() } });
  try {
    return await build(stores, { ...scope, lease: lease.id }, id, options);
  } finally {
    await release(stores, scope.namespace, lease.id);
  }
}

async function build<Stores extends ContainerStores>(
  stores: Stores,
  scope: Scope,
  id: string,
  options: readonly ContainerOption<Stores>[],
): Promise<Container> {
  const container = create(ContainerSchema, { id, runtime: { name: DEFAULT_RUNTIME } });
  for (const option of options) await option({ stores, scope }, container);
  return stores.containers.create(scope, container);
}

/** RFC 3339 in seconds, as containerd's `leases.WithExpiration` writes it. */
function leaseEnd(): string {
  return new Date(Date.now() + LEASE_LIFETIME_MS).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Without the caller's signal: an aborted create must not leave its lease. Never throws: the lease ends by itself. */
async function release({ leases, logger }: ContainerStores, namespace: string, id: string): Promise<void> {
  try {
    await leases.delete({ namespace }, id);
  } catch (error) {
    if (!isError(error, "NotFound")) {
      logger?.warn("lease not released, it expires in 24 h", {
        namespace,
        lease: id,
        error: messageOf(error),
      });
    }
  }
}

/** Names the image. It is not looked up. */
export function withImageName(image: string): ContainerOption {
  return (_, container) => {
    container.image = image;
  };
}

/** Sets the runtime, `io.containerd.runc.v2` otherwise, and its options, such as a `containerd.runc.v1.Options`. */
export function withRuntime(name: string, options?: Any): ContainerOption {
  return (_, container) => {
    container.runtime = create(Container_RuntimeSchema, { name, ...(options !== undefined && { options }) });
  };
}

/** Sets the OCI runtime spec; a bigint in it is written as an integer. */
export function withSpec(spec: object): ContainerOption {
  return (_, container) => {
    container.spec = packSpec(spec);
  };
}

/** Replaces the labels. */
export function withLabels(labels: Labels): ContainerOption {
  return (_, container) => {
    container.labels = { ...labels };
  };
}

/** Adds labels to those that earlier options set. */
export function withAdditionalLabels(labels: Labels): ContainerOption {
  return (_, container) => {
    Object.assign(container.labels, labels);
  };
}

/** Sets the snapshotter, before {@link withSnapshot}. */
export function withSnapshotter(name: string): ContainerOption {
  return (_, container) => {
    container.snapshotter = name;
  };
}

/** Sets the key of the snapshot that is the root filesystem. It is not looked up. */
export function withSnapshot(key: string): ContainerOption {
  return (_, container) => {
    container.snapshotKey = key;
  };
}

/** Adds data of the caller's own. @throws InvalidArgument on an empty name, when applied */
export function withExtension(name: string, extension: Any): ContainerOption {
  return (_, container) => {
    if (name === "") throw fail("InvalidArgument", "extension key must not be zero-length");
    container.extensions[name] = extension;
  };
}

/** Puts the container into a sandbox. */
export function withSandbox(sandboxId: string): ContainerOption {
  return (_, container) => {
    container.sandbox = sandboxId;
  };
}
