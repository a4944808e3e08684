import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { failureOf } from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import type { Logger } from "../lib/log.ts";
import { silentLogger } from "../lib/log.ts";
import { fail } from "../model/errors.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { Scope } from "../model/scope.ts";
import type { ContainerOption } from "./new-container.ts";
import {
  newContainer,
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
import { packSpec } from "./spec.ts";

const scope: Scope = { namespace: "prod" };
let stores: TestMetadata;
beforeEach(async () => {
  stores = await temporaryMetadata();
});
afterEach(() => stores.close());

const any = (typeUrl: string) => create(AnySchema, { typeUrl, value: new Uint8Array([1]) });

describe("newContainer on in-process stores", () => {
  test("applies every option in order and stores the record", async () => {
    const spec = { ociVersion: "1.2.0" };
    const made = await newContainer(stores, scope, "web", [
      withImageName("nginx"),
      withRuntime("io.containerd.kata.v2", any("options")),
      withSpec(spec),
      withLabels({ replaced: "yes" }),
      withLabels({ a: "1", b: "1" }),
      withAdditionalLabels({ b: "2" }),
      withSnapshotter("overlayfs"),
      withSnapshot("web-rootfs"),
      withExtension("example", any("extension")),
      withSandbox("pod"),
    ]);
    expect(made).toEqual(await stores.containers.get(scope, "web"));
    expect(made).toMatchObject({
      id: "web",
      image: "nginx",
      runtime: { name: "io.containerd.kata.v2", options: any("options") },
      spec: packSpec(spec),
      labels: { a: "1", b: "2" },
      snapshotter: "overlayfs",
      snapshotKey: "web-rootfs",
      extensions: { example: any("extension") },
      sandbox: "pod",
    });
  });

  test("options see the lease of 24 hours and it is gone afterwards", async () => {
    const before = Date.now();
    let seen: Scope | undefined;
    const look: ContainerOption = async (context) => {
      seen = context.scope;
      const [lease] = await context.stores.leases.list(scope);
      expect(lease?.id).toBe(context.scope.lease ?? "none");
      const expire = lease?.labels["containerd.io/gc.expire"] ?? "";
      expect(expire).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      expect(Date.parse(expire)).toBeGreaterThan(before + 86_398_000);
      expect(Date.parse(expire)).toBeLessThanOrEqual(Date.now() + 86_400_000);
    };
    const made = await newContainer(stores, scope, "web", [look]);
    expect(seen?.namespace).toBe("prod");
    expect(made.runtime?.name).toBe("io.containerd.runc.v2");
    expect(await stores.leases.list(scope)).toEqual([]);
  });

  test("takes no lease where the scope has one, and leaves that alone", async () => {
    const { id } = await stores.leases.create(scope, {});
    const seen: (string | undefined)[] = [];
    await newContainer(stores, { ...scope, lease: id }, "web", [
      (context) => void seen.push(context.scope.lease),
    ]);
    expect(seen).toEqual([id]);
    expect((await stores.leases.list(scope)).map((lease) => lease.id)).toEqual([id]);
  });

  test("releases the lease when an option fails, and stores nothing", async () => {
    const failure = fail("Aborted", "no such snapshot");
    const broken = newContainer(stores, scope, "web", [
      () => {
        throw failure;
      },
    ]);
    expect(await failureOf(broken)).toBe(failure);
    expect(await stores.leases.list(scope)).toEqual([]);
    expect(await stores.containers.list(scope)).toEqual([]);
  });

  test("releases the lease when the create fails", async () => {
    await newContainer(stores, scope, "web", []);
    expect((await failureOf(newContainer(stores, scope, "web", []))).code).toBe("AlreadyExists");
    const unnamed = newContainer(stores, scope, "other", [withExtension("", any("x"))]);
    expect((await failureOf(unnamed)).message).toBe(
      "extension key must not be zero-length: invalid argument",
    );
    expect(await stores.leases.list(scope)).toEqual([]);
  });

  test("releases the lease without the signal of a caller that has gone", async () => {
    const controller = new AbortController();
    const deletes: Scope[] = [];
    const leases: LeaseStore = {
      ...stores.leases,
      create: (...given) => stores.leases.create(...given),
      delete: (given, id) => {
        deletes.push(given);
        return stores.leases.delete(given, id);
      },
    };
    const aborting = newContainer(
      { containers: stores.containers, leases },
      { ...scope, signal: controller.signal },
      "web",
      [
        () => {
          controller.abort();
          throw fail("Canceled", "context canceled");
        },
      ],
    );
    expect((await failureOf(aborting)).code).toBe("Canceled");
    expect(deletes).toEqual([{ namespace: "prod" }]);
    expect(await stores.leases.list(scope)).toEqual([]);
  });

  test("a lease that cannot be released is told, and hides neither the container nor the failure", async () => {
    const told: unknown[] = [];
    const logger: Logger = {
      ...silentLogger,
      warn: (message, fields) => void told.push([message, fields?.["error"]]),
    };
    const leases: LeaseStore = {
      ...stores.leases,
      create: (...given) => stores.leases.create(...given),
      delete: async () => {
        throw fail("Unavailable", "disk");
      },
    };
    const broken = { containers: stores.containers, leases, logger };
    expect((await newContainer(broken, scope, "web", [])).id).toBe("web");
    expect((await failureOf(newContainer(broken, scope, "web", []))).code).toBe("AlreadyExists");
    expect(told).toEqual(Array(2).fill(["lease not released, it expires in 24 h", "disk: unavailable"]));
  });
});
