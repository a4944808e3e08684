import { describe, expect, test } from "bun:test";
import { failureOf } from "../../test/support/container-store-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { encodeVarint } from "../lib/varint.ts";
import { KEY, textOf } from "./schema.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

type Tree = { [key: string]: string | Tree };

/** `parent` is a transaction, which holds no values, or a bucket. */
function writeTree(parent: Tx | Bucket, tree: Tree): void {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value !== "string") writeTree(parent.createBucketIfNotExists(key), value);
    else if ("put" in parent) parent.put(key, text(value));
  }
}

function readTree(bucket: Bucket): Tree {
  const tree: Tree = {};
  bucket.forEach((key, value) => {
    const nested = bucket.bucket(key);
    tree[textOf(key)] = nested === undefined ? textOf(value) : readTree(nested);
  });
  return tree;
}

/** A database with these buckets at its top, of schema version `version`, is opened; what becomes of it. */
async function migrated(version: bigint | undefined, before: Tree): Promise<Tree> {
  const metadata = await temporaryMetadata({
    prepare: (db) =>
      db.update((tx) => {
        writeTree(tx, before);
        if (version !== undefined) tx.bucket(KEY.v1)?.put(KEY.version, encodeVarint(version));
      }),
  });
  try {
    return contentOf(metadata);
  } finally {
    await metadata.close();
  }
}

function contentOf(metadata: TestMetadata): Tree {
  return metadata.db.view((tx) => {
    const content: Tree = {};
    tx.forEach((name, bucket) => {
      content[textOf(name)] = readTree(bucket);
    });
    return content;
  });
}

/** What 4 is as a signed varint. */
const TODAY = "\b";

describe("migrations", () => {
  test("a new database is of today's version", async () => {
    expect(await migrated(undefined, {})).toEqual({ v1: { version: TODAY } });
  });

  test("what is of today is not written", async () => {
    const metadata = await temporaryMetadata({
      prepare: (db) => db.update((tx) => tx.createBucket(KEY.v1).put(KEY.version, encodeVarint(4n))),
    });
    expect(metadata.db.stats().updates).toBe(1);
    await metadata.close();
  });

  test("1: snapshots learn of their children", async () => {
    const after = await migrated(undefined, {
      v1: {
        ns: {
          snapshots: { native: { base: { name: "1" }, top: { parent: "base" }, odd: { parent: "gone" } } },
        },
      },
    });
    const native = {
      base: { name: "1", children: { top: "" } },
      top: { parent: "base" },
      odd: { parent: "gone" },
    };
    expect(after).toEqual({ v1: { version: TODAY, ns: { snapshots: { native } } } });
  });

  test("2: ingests become buckets", async () => {
    const after = await migrated(1n, {
      v1: { ns: { content: { ingest: { "ref-1": "backend-1", "ref-2": "backend-2" } } }, empty: {} },
    });
    const ingests = { "ref-1": { ref: "backend-1" }, "ref-2": { ref: "backend-2" } };
    expect(after).toEqual({ v1: { version: TODAY, empty: {}, ns: { content: { ingests } } } });
  });

  test("4: sandboxes move below v1, and nothing else stays at the top", async () => {
    const pod = { spec: "s", runtime: { name: "runc", options: "o" }, labels: { a: "b" } };
    const after = await migrated(3n, {
      v1: { ns: { labels: { x: "y" } } },
      ns: { sandboxes: { pod } },
      other: { sandboxes: { pod } },
      stray: { thing: {} },
    });
    expect(after).toEqual({
      v1: { version: TODAY, ns: { labels: { x: "y" }, sandboxes: { pod } }, other: { sandboxes: { pod } } },
    });
  });

  test("only what is missing is carried out", async () => {
    const content = { ingest: { ref: "backend" } };
    const after = await migrated(2n, { v1: { ns: { content } } });
    expect(after).toEqual({ v1: { version: TODAY, ns: { content } } });
  });

  test("a newer database is refused and left alone", async () => {
    const { code, message } = await failureOf(migrated(5n, { v1: { ns: {} } }));
    expect(code).toBe("FailedPrecondition");
    expect(message).toContain("schema version v1.5, newer than v1.4");
  });

  test("a version that is no number is lost data", async () => {
    const prepare = (db: TestMetadata["db"]) =>
      db.update((tx) => tx.createBucket(KEY.v1).put(KEY.version, Uint8Array.of(0x80)));
    expect((await failureOf(temporaryMetadata({ prepare }))).code).toBe("DataLoss");
  });
});
