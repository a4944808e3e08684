import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { create } from "@bufbuild/protobuf";
import { DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { digestOf, type TarEntry, tar } from "../../test/support/tar.ts";
import type { ContentStore } from "../model/content.ts";
import { LAYER_MEDIA_TYPE } from "../model/diff.ts";
import { fail } from "../model/errors.ts";
import { openDiffer } from "./differ.ts";
import { MAX_WORKERS } from "./limits.ts";

const folder = temporaryFolder();
beforeAll(() => mkdirSync(folder, { recursive: true }));
afterAll(() => removeFolder(folder));

const blobs = new Map<string, Buffer>();
/** Of blobs that zeros without an end follow. */
const endless = new Set<string>();
const ENDLESS_BYTES = 2 ** 43;
let open = 0;

/** Blobs in memory, as those of another process, or in files; of a store the differ needs no more to apply. */
function contentIn(place: "memory" | "file"): ContentStore {
  const store = {
    async open(_scope: unknown, digest: string) {
      const blob = blobs.get(digest);
      if (blob === undefined) throw fail("NotFound", `content digest ${digest}`);
      open += 1;
      const sizeBytes = endless.has(digest) ? ENDLESS_BYTES : blob.length;
      let descriptor: number | undefined;
      if (place === "file") {
        writeFileSync(join(folder, digest), blob);
        truncateSync(join(folder, digest), sizeBytes);
        descriptor = openSync(join(folder, digest), "r");
      }
      return {
        sizeBytes,
        descriptor,
        read: async (target: Uint8Array, position: number) =>
          position < blob.length ? blob.copy(target, 0, position) : target.fill(0).length,
        async close() {
          open -= 1;
          if (descriptor !== undefined) closeSync(descriptor);
        },
      };
    },
  };
  return store as unknown as ContentStore;
}

const scope = { namespace: "default", lease: undefined };

function layerOf(blob: Buffer, mediaType = LAYER_MEDIA_TYPE) {
  const digest = digestOf(blob);
  blobs.set(digest, blob);
  return create(DescriptorSchema, { mediaType, digest, size: BigInt(blob.length) });
}

let roots = 0;
function newRoot(): string {
  const root = join(folder, `root-${roots++}`);
  mkdirSync(root);
  return root;
}

const bind = (source: string) => [create(MountSchema, { type: "bind", source, options: ["rbind", "rw"] })];
const files = (count: number): TarEntry[] =>
  Array.from({ length: count }, (_, n) => ({ name: `f${n}`, data: `${n}`.repeat(3000) }));

/** Those of this process that apply and compare layers. */
function threads(): string[] {
  return readdirSync("/proc/self/task").filter((id) => commandOf(id) === "Worker\n");
}

function commandOf(id: string): string {
  try {
    return readFileSync(`/proc/self/task/${id}/comm`, "utf8");
  } catch {
    // It has just ended.
    return "";
  }
}

async function until(isSo: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !isSo(); await Bun.sleep(20))
    if (performance.now() > end) throw new Error("it did not come to that");
}

describe.each(["memory", "file"] as const)("apply of blobs in %s", (place) => {
  const differ = openDiffer({ content: contentIn(place), inUserNamespace: false });

  test.each([
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
    ["nothing", (layer: Buffer) => layer],
  ] as const)("answers what the layer is without its %s", async (_name, pack) => {
    const layer = tar(files(400));
    const root = newRoot();
    const packed = layerOf(Buffer.from(pack(layer)), `${LAYER_MEDIA_TYPE}+gzip`);
    const applied = await differ.apply(scope, packed, bind(root));
    expect(applied).toMatchObject({
      mediaType: LAYER_MEDIA_TYPE,
      digest: digestOf(layer),
      size: BigInt(layer.length),
    });
    expect(readdirSync(root)).toHaveLength(400);
    expect(readFileSync(join(root, "f399"), "utf8")).toBe("399".repeat(3000));
    expect(open).toBe(0);
  });

  test("more layers at once than threads", async () => {
    const layer = layerOf(tar(files(20)));
    const applied = Array.from({ length: 3 * MAX_WORKERS }, async () => {
      const root = newRoot();
      await differ.apply(scope, layer, bind(root));
      return readdirSync(root).length;
    });
    expect(new Set(await Promise.all(applied))).toEqual(new Set([20]));
  });

  test("broken compression and a cut archive are errors, and the next layer applies", async () => {
    const whole = gzipSync(tar(files(50)));
    const cut = layerOf(whole.subarray(0, whole.length >> 1), `${LAYER_MEDIA_TYPE}+gzip`);
    await expect(differ.apply(scope, cut, bind(newRoot()))).rejects.toThrow(/decompress layer: gzip/);
    const short = layerOf(tar(files(50)).subarray(0, 5000));
    await expect(differ.apply(scope, short, bind(newRoot()))).rejects.toThrow(/unexpected EOF.*f\d/);
    await differ.apply(scope, layerOf(tar(files(1))), bind(newRoot()));
    expect(open).toBe(0);
  });

  test("a caller that has gone ends the work", async () => {
    const controller = new AbortController();
    controller.abort();
    const layer = layerOf(tar(files(2000)));
    const gone = { ...scope, signal: controller.signal };
    await expect(differ.apply(gone, layer, bind(newRoot()))).rejects.toMatchObject({ code: "Canceled" });
    expect(open).toBe(0);
  });

  test("a caller that goes amid the work ends it, and the next layer applies", async () => {
    const controller = new AbortController();
    const gone = { ...scope, signal: controller.signal };
    const layer = layerOf(tar(files(3)));
    endless.add(layer.digest);
    const root = newRoot();
    const ended = differ.apply(gone, layer, bind(root)).catch((error: unknown) => error);
    await until(() => readdirSync(root).length > 0);
    controller.abort();
    expect(await ended).toMatchObject({ code: "Canceled" });
    endless.clear();
    expect(open).toBe(0);
    await differ.apply(scope, layerOf(tar(files(1))), bind(newRoot()));
  });

  test("a thread takes one layer after another, and ends when none comes", async () => {
    await until(() => threads().length === 0);
    const seen = new Set<string>();
    for (let n = 1; n < 10; n++) {
      const root = newRoot();
      const layer = tar(files(n));
      const applied = await differ.apply(scope, layerOf(layer), bind(root), { syncFs: n % 2 === 0 });
      expect(applied.digest).toBe(digestOf(layer));
      expect(readdirSync(root)).toHaveLength(n);
      for (const id of threads()) seen.add(id);
    }
    expect(seen.size).toBeLessThan(9);
    await until(() => threads().length === 0);
  });

  test("a folder that a layer implies has the attributes of the nearest layer below", async () => {
    const [upper, near, far] = [newRoot(), newRoot(), newRoot()];
    for (const lower of [near, far]) mkdirSync(join(lower, "a/b"), { recursive: true });
    mkdirSync(join(far, "only-far"));
    writeFileSync(join(near, "file"), "");
    mkdirSync(join(far, "file"));
    chmodSync(join(near, "a"), 0o700);
    chmodSync(join(near, "a/b"), 0o3711);
    for (const path of ["a", "a/b", "only-far", "file"]) chmodSync(join(far, path), 0o1777);
    const options = [`lowerdir=${near}:${far}`, `upperdir=${upper}`, `workdir=${upper}-work`];
    const overlay = [create(MountSchema, { type: "overlay", source: "overlay", options })];
    const entries = ["a/b/x", "only-far/x", "file/x", "nowhere/x"].map((name) => ({ name, data: "" }));
    await differ.apply(scope, layerOf(tar(entries)), overlay);
    const modes = ["a", "a/b", "only-far", "file", "nowhere"].map((path) =>
      (lstatSync(join(upper, path)).mode & 0o7777).toString(8),
    );
    expect(modes).toEqual(["700", "3711", "1777", "755", "755"]);
  });

  test("a file system that is full is told as that", async () => {
    const tmpfs = [create(MountSchema, { type: "tmpfs", source: "tmpfs", options: ["size=64k"] })];
    const layer = layerOf(tar(files(100)));
    await expect(differ.apply(scope, layer, tmpfs)).rejects.toMatchObject({
      code: "ResourceExhausted",
      message: expect.stringMatching(/entry "f\d+".*no space left on device.*resource exhausted/),
    });
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain("bunkerd-mount-");
  });
});
