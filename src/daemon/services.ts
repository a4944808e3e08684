import { join } from "node:path";
import type { Exchange } from "../events/exchange.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { CollectionScheduler } from "../model/collection.ts";
import type { Deprecations } from "../model/deprecations.ts";
import type { MountStore } from "../model/mounts.ts";
import type { TaskStore } from "../model/tasks.ts";
import { collectionService } from "../services/collection.ts";
import { containersService } from "../services/containers.ts";
import { contentService } from "../services/content.ts";
import { type DiffService, diffService } from "../services/diff.ts";
import { eventsService } from "../services/events.ts";
import { imagesService } from "../services/images.ts";
import { introspectionService } from "../services/introspection.ts";
import { leasesService } from "../services/leases.ts";
import { mountsService } from "../services/mounts.ts";
import { namespacesService } from "../services/namespaces.ts";
import { sandboxStoreService } from "../services/sandboxes.ts";
import { snapshotsService } from "../services/snapshots.ts";
import { streamingService } from "../services/streaming.ts";
import { tasksService } from "../services/tasks.ts";
import { transferService } from "../services/transfer.ts";
import { ttrpcEventsService } from "../services/ttrpc-events.ts";
import { versionService } from "../services/version.ts";
import { type HealthStatus, healthBinding } from "../transport/health.ts";
import { reflectionBindings } from "../transport/reflection.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { type Parts, PluginType } from "./parts.ts";
import type { Transfers } from "./transfer.ts";

export interface ServicesDependencies {
  readonly parts: Parts;
  readonly exchange: Exchange | undefined;
  readonly metadata: Metadata | undefined;
  readonly collection: CollectionScheduler | undefined;
  readonly mounts: MountStore | undefined;
  readonly tasks: TaskStore | undefined;
  readonly diff: DiffService | undefined;
  readonly transfer: Transfers;
  readonly health: HealthStatus;
  /** The kubelet's services. */
  readonly cri: readonly ServiceBinding[];
  readonly deprecations: Deprecations;
  readonly root: string;
  readonly version: string;
  readonly revision: string;
}

/** Starts the stores' and services' parts, named as containerd's plugins, and answers what the listeners serve. */
export async function startServices(dependencies: ServicesDependencies): Promise<readonly ServiceBinding[]> {
  const {
    parts,
    exchange,
    metadata,
    collection,
    mounts,
    tasks,
    diff,
    transfer,
    health,
    deprecations,
    root,
    version,
    revision,
  } = dependencies;
  const bindings: ServiceBinding[] = [];
  const add = async <N extends Readonly<Record<string, object | undefined>>>(
    id: string,
    needs: N,
    build: (given: { readonly [K in keyof N]: NonNullable<N[K]> }) => ServiceBinding,
  ): Promise<void> => {
    const binding = await parts.start({ type: PluginType.grpc, id }, needs, build);
    if (binding !== undefined) bindings.push(binding);
  };
  const store = <T extends object>(type: string, id: string, of: (metadata: Metadata) => T) =>
    parts.start({ type, id }, { metadata }, (given) => of(given.metadata));
  const { service } = PluginType;
  const containers = await store(service, "containers-service", (stores) => stores.containers);
  const content = await store(service, "content-service", (stores) => stores.content);
  const images = await parts.start(
    { type: service, id: "images-service" },
    { metadata, collection },
    (given) => given.metadata.images,
  );
  const snapshotters = await store(service, "snapshots-service", (stores) => stores.snapshots);
  const namespaces = await store(service, "namespaces-service", (stores) => stores.namespaces);
  const leases = await parts.start(
    { type: PluginType.lease, id: "manager" },
    { metadata, collection },
    (given) => given.metadata.leases,
  );
  const sandboxes = await store(PluginType.sandboxStore, "local", (stores) => stores.sandboxes);

  await add("containers", { containers }, (given) =>
    containersService({ containers: given.containers, encoded: given.containers }),
  );
  await add("content", { content }, contentService);
  await add("images", { images }, imagesService);
  await add("snapshots", { snapshotters }, snapshotsService);
  await add("mounts", { mounts }, mountsService);
  await add("diff", { diff }, diffService);
  const { streams, transfers: transferrer } = transfer;
  await add("streaming", { streams }, streamingService);
  await add("transfer", { transferrer, streams }, transferService);
  await add("namespaces", { namespaces }, namespacesService);
  await add("leases", { leases }, leasesService);
  await add("sandboxes", { sandboxes }, sandboxStoreService);
  await add("tasks", { tasks }, tasksService);
  await add("events", { exchange }, eventsService);
  const directory = join(root, `${PluginType.grpc}.introspection`);
  await add("introspection", {}, () => introspectionService({ plugins: parts, directory, deprecations }));
  await add("version", {}, () => versionService({ version, revision }));
  await add("healthcheck", {}, () => healthBinding(health));
  // None of containerd's plugins, so it is not listed among them.
  if (metadata !== undefined && collection !== undefined)
    bindings.push(collectionService({ collector: metadata.collector, collection }));
  bindings.push(...dependencies.cri);
  return [...bindings, ...reflectionBindings(bindings)];
}

/** What the ttrpc server serves: of each part that runs, the service that it has for shims. */
export function ttrpcBindings(parts: Parts, exchange: Exchange | undefined): readonly ServiceBinding[] {
  const runs = parts.list().some(({ type, id, initError }) => {
    return type === PluginType.grpc && id === "events" && initError === undefined;
  });
  return runs && exchange !== undefined ? [ttrpcEventsService({ exchange })] : [];
}
