import { expect, test } from "bun:test";
import { imageService } from "../cri/image-service.ts";
import { runtimeService } from "../cri/runtime-service.ts";
import { Exchange } from "../events/exchange.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { MountStore } from "../model/mounts.ts";
import type { TaskStore } from "../model/tasks.ts";
import { sandboxControllerService } from "../services/sandboxes.ts";
import { HealthStatus } from "../transport/health.ts";
import { API_SERVICES } from "./api.ts";
import { Parts, PluginType } from "./parts.ts";
import { startServices } from "./services.ts";
import type { Transfers } from "./transfer.ts";

/** Stores that are only handed on. */
const metadata = {
  containers: {},
  content: {},
  images: {},
  snapshots: new Map(),
  namespaces: {},
  leases: {},
  sandboxes: {},
} as unknown as Metadata;

const collection = { request: () => Promise.reject(new Error("nobody asks")) };
const mounts = {} as unknown as MountStore;
const tasks = {} as unknown as TaskStore;
const transfer = { streams: {}, transfers: {} } as unknown as Transfers;
const diff = { differs: [], syncFs: true };

async function bindingsOf(disabled: readonly string[], served: Metadata | null = metadata) {
  const parts = new Parts({ disabled: new Set(disabled) });
  const exchange = await parts.start({ type: PluginType.event, id: "exchange" }, {}, () => new Exchange());
  const options = {
    parts,
    exchange,
    metadata: served ?? undefined,
    collection: served === null ? undefined : collection,
    mounts: served === null ? undefined : mounts,
    tasks: served === null ? undefined : tasks,
    diff: served === null ? undefined : diff,
    transfer: served === null ? { streams: undefined, transfers: undefined } : transfer,
    health: new HealthStatus(),
    cri: [
      sandboxControllerService({ controller: async () => undefined, publisher: exchange ?? new Exchange() }),
      runtimeService({ calls: () => Promise.reject(new Error("called")), version: "" }),
      imageService({ calls: () => Promise.reject(new Error("called")) }),
    ],
    deprecations: { list: () => [] },
    root: "/",
    version: "",
    revision: "",
  };
  const bindings = await startServices(options);
  return { parts, names: bindings.map(({ service }) => service.typeName) };
}

test("the API's document tells of every service that is served", async () => {
  const { names } = await bindingsOf([]);
  const documented = API_SERVICES.map((service) => service.typeName).sort();
  expect(names.filter((name) => !name.startsWith("grpc.reflection.")).sort()).toEqual(documented);
});

test("a disabled service is not served, nor what needs it", async () => {
  const { names } = await bindingsOf([
    "io.containerd.grpc.v1.leases",
    "io.containerd.service.v1.containers-service",
  ]);
  expect(names).not.toContain("containerd.services.leases.v1.Leases");
  expect(names).not.toContain("containerd.services.containers.v1.Containers");
  expect(names).toContain("containerd.services.namespaces.v1.Namespaces");
});

test("without metadata the daemon still tells its version", async () => {
  const { names, parts } = await bindingsOf([], null);
  expect(names).toContain("containerd.services.version.v1.Version");
  expect(names).not.toContain("containerd.services.leases.v1.Leases");
  const failed = parts.list().filter(({ initError }) => initError !== undefined);
  expect(failed.map(({ id }) => id)).toContain("leases");
});
