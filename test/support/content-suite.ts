/**
 * What a content store must do, whoever implements it. Each test bears the name of its case in containerd's
 * `core/content/testsuite`; `test/content-suite.md` is the table. The cases of the copying helpers of Go's clients (ResumeCopy…) are
 * here what a client does with the store: seek to the offset, or read and drop, then go on.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { InfoSchema, type Status } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { ContentStore, ContentWriter, WriterOptions } from "../../src/model/content.ts";
import { type ErrorCode, isError } from "../../src/model/errors.ts";
import type { Scope } from "../../src/model/scope.ts";

export const EMPTY_DIGEST = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const LABELS = { "containerd.io/gc.root": "2026-01-01T00:00:00Z" };
const scope: Scope = { namespace: "suite" };
const other: Scope = { namespace: "other" };

export function digestOf(bytes: Uint8Array, algorithm = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

export async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    if (isError(error)) return error.code;
    throw error;
  }
}

export async function readAll(store: ContentStore, of: Scope, digest: string): Promise<Uint8Array> {
  const reader = await store.open(of, digest);
  try {
    const bytes = new Uint8Array(reader.sizeBytes + 1);
    const count = await reader.read(bytes, 0);
    return bytes.subarray(0, count);
  } finally {
    await reader.close();
  }
}

const nanoseconds = (time: Timestamp | undefined): bigint =>
  (time?.seconds ?? 0n) * 1_000_000_000n + BigInt(time?.nanos ?? 0);

/** A sized and summed content, never the same twice. */
function contentOf(sizeBytes: number) {
  const bytes = new Uint8Array(randomBytes(sizeBytes));
  return { bytes, digest: digestOf(bytes), totalBytes: BigInt(sizeBytes) };
}

/** The cases for one namespace. */
export function contentSuite(getStore: () => ContentStore): void {
  let store: ContentStore;
  beforeEach(() => {
    store = getStore();
  });
  const open = (options: WriterOptions): Promise<ContentWriter> => store.writer(scope, options);
  writerCases(() => store, open);
  commitCases(() => store, open);
  resumeCases(() => store, open);

  test("SmallBlob", async () => {
    const bytes = new TextEncoder().encode("foobar");
    const writer = await open({ ref: "small", totalBytes: 6n, expected: digestOf(bytes) });
    await writer.write(bytes);
    await writer.commit({ sizeBytes: 6n, expected: digestOf(bytes) });
    expect(await readAll(store, scope, digestOf(bytes))).toEqual(bytes);
  });

  test("Labels", async () => {
    const { bytes, digest } = contentOf(256);
    const writer = await open({ ref: "labels", totalBytes: 256n, expected: digest });
    await writer.write(bytes);
    await writer.commit({ labels: { k1: "v1", k2: "v2", ...LABELS } });
    const committed = await store.info(scope, digest);
    expect(committed.labels).toEqual({ k1: "v1", k2: "v2", ...LABELS });
    const changed = { k1: "newvalue", k3: "v3", ...LABELS };
    await store.update(scope, create(InfoSchema, { digest, labels: changed }));
    const replaced = await store.info(scope, digest);
    expect(replaced).toMatchObject({ labels: changed, size: 256n });
    expect(nanoseconds(replaced.createdAt)).toBe(nanoseconds(committed.createdAt));
    expect(nanoseconds(replaced.updatedAt)).toBeGreaterThan(nanoseconds(committed.updatedAt));
    const masked = create(InfoSchema, { digest, labels: { k1: "v1", ...LABELS } });
    await store.update(scope, masked, ["labels.k3", "labels.k1"]);
    expect((await store.info(scope, digest)).labels).toEqual({ k1: "v1", ...LABELS });
  });
}

function writerCases(
  getStore: () => ContentStore,
  open: (of: WriterOptions) => Promise<ContentWriter>,
): void {
  test("Writer", async () => {
    const store = getStore();
    const contents = [256, 256, 256, 256, 16 << 21].map(contentOf);
    const writers = await Promise.all(
      contents.map(({ digest, totalBytes }, index) =>
        open({
          ref: `c${index}`,
          ...(index === 1 || index > 2 ? { totalBytes } : {}),
          ...(index > 1 ? { expected: digest } : {}),
        }),
      ),
    );
    for (const [index, { bytes, digest, totalBytes }] of contents.entries()) {
      const writer = writers[index] as ContentWriter;
      const step = bytes.length > 1000 ? 1 << 20 : 32;
      for (let at = 0; at < bytes.length; at += step) await writer.write(bytes.subarray(at, at + step));
      await writer.commit({ labels: LABELS });
      expect(writer.digest()).toBe(digest);
      const info = await store.info(scope, digest);
      expect(info).toMatchObject({ digest, size: totalBytes, labels: LABELS });
      expect(info.createdAt).toEqual(info.updatedAt as Timestamp);
    }
  });

  test("UpdateStatus", async () => {
    const { bytes, digest } = contentOf(256);
    const writer = await open({ ref: "status", totalBytes: 256n, expected: digest });
    let last: Status = writer.status();
    expect(last).toMatchObject({ ref: "status", offset: 0n, total: 256n });
    expect(writer.digest()).toBe(EMPTY_DIGEST);
    for (const end of [64, 192, 256]) {
      await writer.write(bytes.subarray(Number(last.offset), end));
      const status = writer.status();
      expect(status).toMatchObject({ ref: "status", offset: BigInt(end), total: 256n });
      expect(status.startedAt).toEqual(last.startedAt as Timestamp);
      expect(nanoseconds(status.updatedAt)).toBeGreaterThan(nanoseconds(last.updatedAt));
      expect(writer.digest()).toBe(digestOf(bytes.subarray(0, end)));
      last = status;
    }
    await writer.commit({ labels: LABELS });
    expect(await getStore().info(scope, digest)).toMatchObject({ size: 256n, labels: LABELS });
  });
}

function commitCases(
  getStore: () => ContentStore,
  open: (of: WriterOptions) => Promise<ContentWriter>,
): void {
  /** Opens the ref and writes; that somebody else cannot meanwhile is checked. */
  async function begun(ref: string, bytes: Uint8Array): Promise<ContentWriter> {
    const writer = await open({ ref });
    expect(await codeOf(open({ ref }))).toBe("Unavailable");
    await writer.write(bytes);
    return writer;
  }

  test("CommitExists", async () => {
    const { bytes, digest, totalBytes } = contentOf(256);
    await (await begun("c1", bytes)).commit({ expected: digest });
    for (const expected of [digest, ""]) {
      const writer = await begun(`c1-commitexists-${expected.length}`, bytes);
      expect(await codeOf(writer.commit({ sizeBytes: totalBytes, expected }))).toBe("AlreadyExists");
    }
  });

  test("CommitErrorState", async () => {
    const { bytes, digest, totalBytes } = contentOf(256);
    const ref = "state";
    await (await begun("c1", bytes)).commit({ expected: digest });
    for (const expected of [digest, ""]) {
      const writer = await begun(ref, bytes);
      expect(await codeOf(writer.commit({ sizeBytes: totalBytes, expected }))).toBe("AlreadyExists");
    }
    const more = new TextEncoder().encode("more");
    const wrong = await begun(ref, Buffer.concat([bytes, more]));
    const wrongDigest = { sizeBytes: totalBytes + 4n, expected: contentOf(256).digest };
    expect(await codeOf(wrong.commit(wrongDigest))).toBe("FailedPrecondition");
    const short = await begun(ref, new Uint8Array());
    expect(await codeOf(short.commit({ sizeBytes: totalBytes }))).toBe("FailedPrecondition");
    await (await begun(ref, new Uint8Array())).commit({ sizeBytes: totalBytes + 4n });
    expect(await codeOf((await begun(ref, bytes)).commit({ expected: digest }))).toBe("AlreadyExists");
    for (let round = 0; round < 2; round++) {
      const writer = await begun(ref, new Uint8Array());
      await writer.truncate();
      await writer.close();
    }
    expect((await getStore().listStatuses(scope)).map((status) => status.ref)).toEqual([ref]);
  });
}

/** How a client goes on with an ingest that holds the first `at` bytes. */
const RESUMPTIONS: Readonly<
  Record<string, (writer: ContentWriter, bytes: Uint8Array, at: number) => Promise<void>>
> = {
  ResumeTruncate: async (writer, bytes) => {
    await writer.truncate();
    await writeInPieces(writer, bytes);
  },
  ResumeDiscard: (writer, bytes, at) => writeInPieces(writer, bytes.subarray(at)),
  ResumeCopy: (writer, bytes) => writeInPieces(writer, bytes.subarray(Number(writer.status().offset))),
  ResumeCopySeeker: (writer, bytes) =>
    writeInPieces(writer, bytes.subarray(Number(writer.status().offset)), 7000),
  ResumeCopyReaderAt: async (writer, bytes) =>
    void (await writer.write(bytes.subarray(Number(writer.status().offset)))),
};

async function writeInPieces(writer: ContentWriter, bytes: Uint8Array, step = 1024): Promise<void> {
  for (let at = 0; at < bytes.length; at += step) await writer.write(bytes.subarray(at, at + step));
}

function resumeCases(
  getStore: () => ContentStore,
  open: (of: WriterOptions) => Promise<ContentWriter>,
): void {
  test("Resume", async () => {
    const { bytes, digest } = contentOf(256);
    const options = { ref: "cb", totalBytes: 256n, expected: digest };
    const first = await open(options);
    await first.write(bytes.subarray(0, 128));
    const before = first.status();
    await first.close();
    const second = await open(options);
    expect(second.status()).toMatchObject({ ref: "cb", offset: 128n, total: 256n });
    expect(second.status().startedAt).toEqual(before.startedAt as Timestamp);
    expect(second.digest()).toBe(digestOf(bytes.subarray(0, 128)));
    await second.write(bytes.subarray(128));
    expect(second.digest()).toBe(digest);
    await second.commit({});
    await second.close();
    expect(await getStore().info(scope, digest)).toMatchObject({ size: 256n });
  });

  for (const [name, resume] of Object.entries(RESUMPTIONS)) {
    test(name, async () => {
      for (const sizeBytes of [500, 5000, 50_000]) {
        for (const share of [0, 0.1, 0.5, 0.9, 1]) {
          const { bytes, digest, totalBytes } = contentOf(sizeBytes);
          const options = { ref: `${sizeBytes}-${share}`, totalBytes, expected: digest };
          const at = Math.floor(sizeBytes * share);
          const first = await open(options);
          await first.write(bytes.subarray(0, at));
          await first.close();
          const second = await open(options);
          expect(second.status().offset).toBe(BigInt(at));
          await resume(second, bytes, at);
          await second.commit({ sizeBytes: totalBytes, expected: digest });
          expect(await readAll(getStore(), scope, digest)).toEqual(bytes);
        }
      }
    });
  }
}

async function put(store: ContentStore, of: Scope, bytes: Uint8Array): Promise<void> {
  const writer = await store.writer(of, { ref: "put" });
  await writer.write(bytes);
  await writer.commit({});
}

/** The cases for several namespaces. `share` lets all others use the content of a namespace. */
export function contentNamespaceSuite(
  getStores: () => { shared: ContentStore; isolated: ContentStore; share: (of: Scope) => Promise<void> },
): void {
  describe("namespaces", () => {
    test("CrossNamespaceAppend", async () => {
      const { shared } = getStores();
      const { bytes, digest, totalBytes } = contentOf(1000);
      await put(shared, scope, bytes);
      const writer = await shared.writer(other, { ref: "append", totalBytes, expected: digest });
      expect(writer.status()).toMatchObject({ ref: "append", offset: totalBytes, total: totalBytes });
      expect(writer.digest()).toBe(digest);
      const appended = new TextEncoder().encode("appended bytes");
      const all = Buffer.concat([bytes, appended]);
      await writer.write(appended);
      await writer.commit({ sizeBytes: BigInt(all.length), expected: digestOf(all) });
      expect(await readAll(shared, scope, digest)).toEqual(bytes);
      expect(Buffer.compare(await readAll(shared, other, digestOf(all)), all)).toBe(0);
    });

    test("CrossNamespaceShare", async () => {
      const { shared } = getStores();
      const { bytes, digest, totalBytes } = contentOf(1000);
      await put(shared, scope, bytes);
      const writer = await shared.writer(other, { ref: "share", totalBytes, expected: digest });
      expect(writer.status()).toMatchObject({ offset: totalBytes, total: totalBytes });
      await writer.commit({ sizeBytes: totalBytes, expected: digest });
      for (const of of [scope, other]) expect(await readAll(shared, of, digest)).toEqual(bytes);
    });

    test("CrossNamespaceIsolate", async () => {
      const { isolated } = getStores();
      const { bytes, digest, totalBytes } = contentOf(1000);
      await put(isolated, scope, bytes);
      const writer = await isolated.writer(other, { ref: "isolate", totalBytes, expected: digest });
      expect(writer.status().offset).toBe(0n);
      expect(writer.digest()).toBe(EMPTY_DIGEST);
      await writer.write(bytes);
      await writer.commit({ sizeBytes: totalBytes, expected: digest });
      expect(await readAll(isolated, other, digest)).toEqual(bytes);
    });

    test("SharedNamespaceIsolate", async () => {
      const { isolated, share } = getStores();
      const { bytes, digest, totalBytes } = contentOf(1000);
      await share(scope);
      await put(isolated, scope, bytes);
      const writer = await isolated.writer(other, { ref: "shared", totalBytes, expected: digest });
      expect(writer.status()).toMatchObject({ offset: totalBytes, total: totalBytes });
      await writer.commit({ sizeBytes: totalBytes, expected: digest });
      for (const of of [scope, other]) expect(await readAll(isolated, of, digest)).toEqual(bytes);
    });
  });
}
