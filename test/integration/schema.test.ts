/** The same changes by containerd and by bunkerd's stores leave the same buckets, keys and values, byte for byte but for the times. */

import { expect, test } from "bun:test";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Client } from "bunkerd/client";
import { Container_RuntimeSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { ResourceSchema } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { Db } from "../../src/bolt/db.ts";
import type { ContainerStore } from "../../src/model/containers.ts";
import { isError } from "../../src/model/errors.ts";
import type { LeaseStore } from "../../src/model/leases.ts";
import type { NamespaceStore } from "../../src/model/namespaces.ts";
import type { SandboxStore } from "../../src/model/sandboxes.ts";
import { bucketLines } from "../support/bucket-lines.ts";
import { anyOf, containerOf } from "../support/container-store-suite.ts";
import { startDaemon } from "../support/daemons.ts";
import { temporaryMetadata } from "../support/metadata.ts";

interface Stores {
  readonly containers: ContainerStore;
  readonly namespaces: NamespaceStore;
  readonly leases: LeaseStore;
  readonly sandboxes: SandboxStore;
}

const scope = { namespace: "schema" };

/** Some of these fail: what they leave behind is part of the comparison. */
const changes: readonly ((stores: Stores) => Promise<unknown>)[] = [
  ({ namespaces }) => namespaces.create(namespaceOf("labelled", { a: "1", empty: "" })),
  ({ namespaces }) => namespaces.create(namespaceOf("bare")),
  ({ namespaces }) => namespaces.update(namespaceOf("updated", { b: "2", c: "3" })),
  ({ namespaces }) => namespaces.update(namespaceOf("updated"), ["labels.b"]),
  ({ namespaces }) => namespaces.update(namespaceOf("cleared", { b: "2" })),
  ({ namespaces }) => namespaces.update(namespaceOf("cleared")),
  ({ namespaces }) => namespaces.update(namespaceOf("masked"), ["labels.x"]),
  ({ namespaces }) => namespaces.create(namespaceOf("gone")),
  ({ namespaces }) => namespaces.delete("gone"),
  ({ containers }) => containers.create(scope, containerOf("plain")),
  ({ containers }) => containers.create(scope, containerOf("nospec", { spec: undefined, image: "" })),
  ({ containers }) => containers.create(scope, full),
  ({ containers }) => containers.create(scope, full),
  ({ containers }) => containers.create({ namespace: "failed" }, containerOf("a/b")),
  ({ containers }) => containers.create(scope, containerOf("large", { spec: anyOf("x".repeat(50_000)) })),
  ({ containers }) => containers.create(scope, containerOf("nolabels", { labels: { a: "1" } })),
  ({ containers }) => containers.update(scope, containerOf("nolabels"), ["labels"]),
  ({ containers }) => containers.create(scope, containerOf("emptied", { labels: { a: "1" } })),
  ({ containers }) => containers.update(scope, containerOf("emptied"), ["labels.a"]),
  ({ containers }) =>
    containers.update(scope, changed, ["labels.z", "extensions.z", "extensions.none", "image"]),
  ({ containers }) => containers.update(scope, containerOf("full", { extensions: {} }), ["extensions"]),
  ({ containers }) => containers.update(scope, containerOf("full", { spec: undefined }), ["spec"]),
  ({ containers }) => containers.update(scope, containerOf("full"), ["snapshotter"]),
  ({ containers }) => containers.create({ namespace: "emptied" }, containerOf("web")),
  ({ containers }) => containers.delete({ namespace: "emptied" }, "web"),
  ({ leases }) =>
    leases.create(scope, { id: "a/b ü", labels: { "containerd.io/gc.expire": "2099-01-01T00:00:00Z" } }),
  ({ leases }) => leases.create(scope, { id: "nolabels", labels: {} }),
  ({ leases }) => leases.create(scope, { id: "emptylabels", labels: { a: "" } }),
  ({ leases }) => leases.addResource(scope, "nolabels", resourceOf("content", `sha256:${"0".repeat(64)}`)),
  ({ leases }) => leases.addResource(scope, "nolabels", resourceOf("snapshots/overlayfs", "key")),
  ({ leases }) => leases.addResource(scope, "nolabels", resourceOf("snapshots/native", "key")),
  ({ leases }) => leases.addResource(scope, "nolabels", resourceOf("ingests", "ref")),
  ({ leases }) => leases.addResource(scope, "nolabels", resourceOf("images", "busybox")),
  ({ leases }) => leases.deleteResource(scope, "nolabels", resourceOf("images", "busybox")),
  ({ leases }) => leases.deleteResource(scope, "emptylabels", resourceOf("images", "busybox")),
  ({ leases }) => leases.create({ namespace: "emptied" }, { id: "gone" }),
  ({ leases }) => leases.delete({ namespace: "emptied" }, "gone"),
  ({ sandboxes }) => sandboxes.create(scope, pod),
  ({ sandboxes }) => sandboxes.create(scope, create(SandboxSchema, { sandboxId: "bare", runtime: {} })),
  ({ sandboxes }) => sandboxes.create({ namespace: "emptied" }, pod),
  ({ sandboxes }) => sandboxes.delete({ namespace: "emptied" }, "pod"),
  ({ sandboxes }) =>
    sandboxes.update(scope, create(SandboxSchema, { sandboxId: "pod", runtime: { name: "runc" } })),
  ({ sandboxes }) => sandboxes.update(scope, pod, ["extensions.none", "labels.a", "labels.new"]),
];

const full = containerOf("full", {
  labels: { a: "1", empty: "", "io.example/long": "v".repeat(3_000) },
  runtime: create(Container_RuntimeSchema, { name: "runc", options: anyOf("options", "o") }),
  snapshotter: "overlayfs",
  snapshotKey: "key",
  sandbox: "pod",
  extensions: { x: anyOf("x"), empty: anyOf("", "") },
});
const changed = containerOf("full", { labels: { z: "26" }, extensions: { z: anyOf("z") }, image: "other" });
const pod = create(SandboxSchema, {
  sandboxId: "pod",
  runtime: { name: "runc", options: anyOf("options", "o") },
  spec: anyOf("{}"),
  labels: { a: "1", empty: "" },
  extensions: { x: anyOf("x") },
  sandboxer: "podsandbox",
});

function namespaceOf(name: string, labels: Record<string, string> = {}) {
  return create(NamespaceSchema, { name, labels });
}

function resourceOf(type: string, id: string) {
  return create(ResourceSchema, { type, id });
}

/** Carries the changes out; which of them failed, and with which code. */
async function carryOut(stores: Stores): Promise<string[]> {
  const failures: string[] = [];
  for (const [index, change] of changes.entries()) {
    try {
      await change(stores);
    } catch (error) {
      if (!isError(error)) throw error;
      failures.push(`${index} ${error.code} ${error.message}`);
    }
  }
  return failures;
}

function contentsOf(db: Db): string[] {
  return db.view((tx) => {
    const lines: string[] = [];
    tx.forEach((name, bucket) => {
      lines.push(...bucketLines(bucket, Buffer.from(name).toString()));
    });
    return lines;
  });
}

test("containerd's and our schema are one", async () => {
  const ours = await temporaryMetadata();
  const daemon = await startDaemon("containerd-2.1");
  try {
    const client = await Client.connect(daemon.socket);
    const stores = {
      containers: client.containers(),
      namespaces: client.namespaces(),
      leases: client.leases(),
      sandboxes: client.sandboxes(),
    };
    const failures = await carryOut(stores);
    client.close();
    expect(await daemon.halt()).toBe(0);
    expect(await carryOut(ours)).toEqual(failures);
    expect(failures.length).toBeGreaterThan(2);
    const copy = join(daemon.folder, "copy.db");
    copyFileSync(daemon.database, copy);
    const theirs = Db.open(copy);
    const expected = contentsOf(theirs);
    await theirs.close();
    expect(contentsOf(ours.db)).toEqual(expected);
    expect(expected.length).toBeGreaterThan(80);
  } finally {
    await daemon.stop();
    await ours.close();
  }
}, 60_000);
