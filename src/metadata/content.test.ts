import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
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
import { recordingPublisher, type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { openBlobs } from "../content/blobs.ts";
import { systemClock } from "../lib/clock.ts";
import { armFailpoint, systemError } from "../lib/failpoint.ts";
import { silentLogger } from "../lib/log.ts";
import type { ContentWriter } from "../model/content.ts";
import { LABEL_SHARED_NAMESPACE } from "../model/labels.ts";
import type { Scope } from "../model/scope.ts";
import { Changes } from "./changes.ts";
import { openContent } from "./content.ts";
import { ContentGarbage } from "./content-garbage.ts";

const scope: Scope = { namespace: "suite" };
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const DAY_NANOSECONDS = 24n * 3600n * 1_000_000_000n;

let now = 0n;
let metadata: TestMetadata;
beforeEach(async () => {
  now = 1_700_000_000_000_000_000n;
  metadata = await temporaryMetadata({ clock: { now: () => ++now } });
});
afterEach(async () => metadata.close());

async function begin(ref: string, text: string, of = scope): Promise<ContentWriter> {
  const writer = await metadata.content.writer(of, { ref });
  await writer.write(bytes(text));
  return writer;
}

const blobPath = (digest: string): string => join(metadata.contentRoot, "blobs", ...digest.split(":"));
const ingests = (): string[] => readdirSync(join(metadata.contentRoot, "ingest"));

describe("content", () => {
  contentSuite(() => metadata.content);
  contentNamespaceSuite(() => ({
    shared: metadata.content,
    isolated: openContent({
      db: metadata.db,
      blobs: openBlobs({ root: metadata.contentRoot, clock: systemClock(), logger: silentLogger }),
      publisher: recordingPublisher(),
      clock: systemClock(),
      shared: false,
      changes: new Changes(),
      garbage: new ContentGarbage({ db: metadata.db, blobs: metadata.blobs, logger: silentLogger }),
    }),
    share: async ({ namespace: name }) => {
      const labels = { [LABEL_SHARED_NAMESPACE]: "true" };
      await metadata.namespaces.create(create(NamespaceSchema, { name, labels }));
    },
  }));
});

describe("on disk", () => {
  test("an ingest is laid out as containerd's, and a committed blob is read-only", async () => {
    const writer = await metadata.content.writer(scope, { ref: "a/../b", totalBytes: 5n });
    await writer.write(bytes("hello"));
    const name = createHash("sha256").update("suite/1/a/../b").digest("hex");
    const folder = join(metadata.contentRoot, "ingest", name);
    const file = (of: string): string => readFileSync(join(folder, of), "utf8");
    expect(readdirSync(folder).sort()).toEqual(["data", "ref", "startedat", "total", "updatedat"]);
    expect([file("data"), file("ref"), file("total")]).toEqual(["hello", "suite/1/a/../b", "5"]);
    expect(file("startedat")).toMatch(/^2023-11-14T22:13:20\.\d{9}Z$/);
    await writer.close();
    expect(readdirSync(folder).sort()).toEqual(["data", "ref", "startedat", "total", "updatedat"]);
    const again = await metadata.content.writer(scope, { ref: "a/../b" });
    await again.commit({});
    const path = blobPath(digestOf(bytes("hello")));
    expect(statSync(path).mode & 0o777).toBe(0o444);
    expect(ingests()).toEqual([]);
  });

  for (const algorithm of ["sha384", "sha512"]) {
    test(`${algorithm} is used where it is expected`, async () => {
      const expected = digestOf(bytes("hello"), algorithm);
      const writer = await begin("r", "hello");
      expect(await codeOf(writer.commit({ expected: digestOf(bytes("other"), algorithm) }))).toBe(
        "FailedPrecondition",
      );
      const second = await metadata.content.writer(scope, { ref: "r" });
      await second.commit({ expected });
      expect(second.digest()).toBe(expected);
      expect(readFileSync(blobPath(expected), "utf8")).toBe("hello");
      expect(await metadata.content.info(scope, expected)).toMatchObject({ size: 5n });
    });
  }

  test("a blob that lost bytes is DataLoss, not a short answer", async () => {
    await (await begin("r", "hello")).commit({});
    truncateSync(blobPath(digestOf(bytes("hello"))), 3);
    expect(await codeOf(metadata.content.open(scope, digestOf(bytes("hello"))))).toBe("DataLoss");
  });

  for (const [name, damage] of Object.entries({
    "no ref": (folder: string) => writeFileSync(join(folder, "ref"), "another"),
    "half a time": (folder: string) => writeFileSync(join(folder, "startedat"), "2023-1"),
  })) {
    test(`an ingest with ${name} begins anew`, async () => {
      await (await begin("r", "hello")).close();
      damage(join(metadata.contentRoot, "ingest", ingests()[0] ?? ""));
      const writer = await metadata.content.writer(scope, { ref: "r" });
      expect(writer.status().offset).toBe(0n);
      await writer.write(bytes("hi"));
      await writer.commit({ expected: digestOf(bytes("hi")) });
    });
  }

  test("an announced size that changes begins anew", async () => {
    const first = await metadata.content.writer(scope, { ref: "r", totalBytes: 5n });
    await first.write(bytes("hel"));
    await first.close();
    const second = await metadata.content.writer(scope, { ref: "r", totalBytes: 6n });
    expect(second.status()).toMatchObject({ offset: 0n, total: 6n });
    await second.close();
  });
});

describe("failures", () => {
  test("an ingest that is aborted under its writer cannot be committed; its ref is free", async () => {
    const writer = await begin("r", "hello");
    await metadata.content.abort(scope, "r");
    expect(await codeOf(writer.commit({}))).toBe("Aborted");
    expect(await codeOf(metadata.content.info(scope, digestOf(bytes("hello"))))).toBe("NotFound");
    await (await begin("r", "hello")).commit({});
  });

  test("abort and open at once: the new ingest is whole", async () => {
    await (await begin("r", "hello")).close();
    const [, writer] = await Promise.all([
      metadata.content.abort(scope, "r"),
      metadata.content.writer(scope, { ref: "r" }),
    ]);
    expect(writer.status().offset).toBe(0n);
    await writer.write(bytes("new"));
    await writer.commit({ expected: digestOf(bytes("new")) });
  });

  test("a commit that fails before the blob has its name leaves the ingest to be resumed", async () => {
    const writer = await begin("r", "hello");
    const disarm = armFailpoint("content.beforeRename", () => {
      throw systemError("ENOSPC");
    });
    expect(await codeOf(writer.commit({}))).toBe("ResourceExhausted");
    disarm();
    const again = await metadata.content.writer(scope, { ref: "r" });
    expect(again.status().offset).toBe(5n);
    await again.commit({ expected: digestOf(bytes("hello")) });
  });

  test("a commit that fails after it leaves no record, and can be made again", async () => {
    const writer = await begin("r", "hello");
    const disarm = armFailpoint("content.beforeRecord", () => {
      throw systemError("EIO");
    });
    await expect(writer.commit({})).rejects.toThrow("EIO");
    disarm();
    expect(await codeOf(metadata.content.info(scope, digestOf(bytes("hello"))))).toBe("NotFound");
    await (await begin("r", "hello")).commit({});
    expect(await readAll(metadata.content, scope, digestOf(bytes("hello")))).toEqual(bytes("hello"));
  });

  test("a writer that is closed refuses", async () => {
    const writer = await begin("r", "hello");
    await writer.close();
    await writer.close();
    expect(await codeOf(writer.write(bytes("x")))).toBe("FailedPrecondition");
    expect(await codeOf(writer.commit({}))).toBe("FailedPrecondition");
  });

  test("two refs of the same bytes: one commits, the other is told", async () => {
    const [one, two] = [await begin("one", "same"), await begin("two", "same")];
    const codes = await Promise.all([codeOf(one.commit({})), codeOf(two.commit({}))]);
    expect(codes.map(String).sort()).toEqual(["AlreadyExists", "undefined"]);
    expect(ingests()).toEqual([]);
    expect(await metadata.content.listStatuses(scope)).toEqual([]);
  });
});

describe("what nobody can resume", () => {
  test("goes when it has expired, or at the start if it has no record", async () => {
    await metadata.leases.create(scope, { id: "l" });
    await (await begin("leased", "x", { ...scope, lease: "l" })).close();
    await (await begin("old", "x")).close();
    now += DAY_NANOSECONDS;
    await (await begin("young", "x")).close();
    const root = join(metadata.contentRoot, "ingest");
    mkdirSync(join(root, "0".repeat(64)));
    mkdirSync(join(root, "f".repeat(64)));
    writeFileSync(join(root, "f".repeat(64), "ref"), "suite/1/young");
    writeFileSync(join(root, "stray"), "");
    await metadata.sweepIngests();
    expect(ingests()).toHaveLength(3);
    await metadata.collector.collect();
    const left = (await metadata.content.listStatuses(scope)).map(({ ref }) => ref);
    expect(left).toEqual(["leased", "young"]);
    expect(ingests()).toHaveLength(2);
    expect(await codeOf(metadata.content.status(scope, "old"))).toBe("NotFound");
  });

  test("leaves the ingest that is being written", async () => {
    const writer = await begin("r", "hello");
    await metadata.content.abort(scope, "r");
    await metadata.sweepIngests();
    await writer.close();
  });
});

test("creation and deletion are told once they are durable", async () => {
  await (await begin("r", "hello")).commit({});
  const digest = digestOf(bytes("hello"));
  expect(await codeOf((await begin("r", "hello")).commit({}))).toBe("AlreadyExists");
  await metadata.content.delete(scope, digest);
  expect(metadata.events).toMatchObject([
    { namespace: "suite", topic: "/content/create", event: { digest, size: 5n } },
    { namespace: "suite", topic: "/content/delete", event: { digest } },
  ]);
});
