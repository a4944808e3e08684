import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import {
  codeOf,
  contentNamespaceSuite,
  contentSuite,
  digestOf,
  readAll,
} from "../../test/support/content-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { type PlainContent, servePlainContent } from "../../test/support/plain-content.ts";
import { systemClock } from "../lib/clock.ts";
import type { BlobStore } from "../model/content.ts";
import { LABEL_SHARED_NAMESPACE } from "../model/labels.ts";
import { remoteBlobs } from "./blobs.ts";
import { Remote } from "./remote.ts";

/* Metadata as a daemon keeps it, over the blobs of a socket. */

const scope = { namespace: "suite" };
const other = { namespace: "other" };
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const hello = digestOf(bytes("hello"));

let folder: string;
let plain: PlainContent;
let remote: Remote;
let blobs: BlobStore;
let shared: TestMetadata;
let isolated: TestMetadata;
const serve = (): Promise<PlainContent> => servePlainContent(join(folder, "s"), join(folder, "content"));

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-blobs-"));
  plain = await serve();
  remote = new Remote(join(folder, "s"));
  blobs = remoteBlobs(remote, { name: "far", clock: systemClock() });
  shared = await temporaryMetadata({ blobs });
  isolated = await temporaryMetadata({ blobs, contentSharing: "isolated" });
});
afterEach(async () => {
  await shared.close();
  await isolated.close();
  remote.close();
  await plain.close();
  rmSync(folder, { recursive: true });
});

const ROOT = { "containerd.io/gc.root": "now" };

async function put(
  metadata: TestMetadata,
  text: string,
  of = scope,
  expected = "",
  labels = {},
): Promise<void> {
  const writer = await metadata.content.writer(of, { ref: `put-${text}` });
  await writer.write(bytes(text));
  await writer.commit({ expected, labels });
}

describe("content", () => {
  contentSuite(() => shared.content);
  contentNamespaceSuite(() => ({
    shared: shared.content,
    isolated: isolated.content,
    share: async ({ namespace: name }) => {
      const labels = { [LABEL_SHARED_NAMESPACE]: "true" };
      await isolated.namespaces.create(create(NamespaceSchema, { name, labels }));
    },
  }));
});

test("a blob that the server has is not taken for other bytes", async () => {
  await put(isolated, "hello");
  for (const algorithm of ["sha256", "sha512"]) {
    await put(isolated, "hello", { namespace: algorithm }, digestOf(bytes("hello"), algorithm));
    const wrong = await isolated.content.writer(other, { ref: algorithm });
    await wrong.write(bytes("hullo"));
    const commit = wrong.commit({ expected: digestOf(bytes("hello"), algorithm) });
    expect(await codeOf(commit)).toBe("FailedPrecondition");
    expect(await isolated.content.list(other)).toEqual([]);
    const right = digestOf(bytes("hello"), algorithm);
    const writer = await isolated.content.writer(other, { ref: `${algorithm}-again` });
    await writer.write(bytes("hello"));
    await writer.commit({ expected: right });
    expect(writer.digest()).toBe(right);
    expect(await readAll(isolated.content, other, right)).toEqual(bytes("hello"));
    await isolated.content.delete(other, right);
  }
});

const aborted = (): string[] =>
  plain.calls.filter(({ method }) => method === "Abort").map(({ subject }) => subject);

async function begin(metadata: TestMetadata, ref: string): Promise<void> {
  const writer = await metadata.content.writer(scope, { ref });
  await writer.write(bytes("half"));
  await writer.close();
}

test("what no record names goes with the first collection", async () => {
  await put(isolated, "of a crash");
  await begin(isolated, "left");
  await put(shared, "hello", scope, hello, ROOT);
  await begin(shared, "mine");
  await shared.collector.collect();
  expect(await plain.digests()).toEqual([hello]);
  expect(aborted()).toEqual(["suite/1/left"]);
  expect(await shared.content.status(scope, "mine")).toMatchObject({ offset: 4n });
});

test("what is deleted while the server is away goes when it is back", async () => {
  await put(shared, "hello", scope, hello, ROOT);
  await begin(shared, "kept");
  await begin(shared, "ended");
  await plain.close();
  const away = /^content store "far": connection to .*: unavailable$/;
  await expect(shared.content.open(scope, hello)).rejects.toThrow(away);
  await expect(shared.content.writer(scope, { ref: "new" })).rejects.toThrow(away);
  await expect(shared.content.abort(scope, "ended")).rejects.toThrow(away);
  await shared.content.delete(scope, hello);
  await shared.collector.collect();
  plain = await serve();
  expect(await plain.digests()).toEqual([hello]);
  await shared.collector.collect();
  expect(await plain.digests()).toEqual([]);
  expect(aborted()).toEqual(["suite/1/ended"]);
  expect(await shared.content.status(scope, "kept")).toMatchObject({ offset: 4n });
  await put(shared, "new");
});

test("a blob that is looked at is not removed meanwhile, and goes the next time", async () => {
  await put(shared, "hello");
  const held = await blobs.hold?.(scope, hello);
  expect(held?.sizeBytes).toBe(5);
  expect(blobs.beginRemoval(hello, new Set())).toBe("in use");
  await shared.content.delete(scope, hello);
  await shared.collector.collect();
  expect(await plain.digests()).toEqual([hello]);
  held?.release();
  await shared.collector.collect();
  expect(await plain.digests()).toEqual([]);
});
