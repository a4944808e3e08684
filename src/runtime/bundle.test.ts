import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { bundleAt, createBundle, deleteBundle } from "./bundle.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bundle-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const folders = () => ({ state: join(folder, "state"), root: join(folder, "root") });
const spec = (text: string) =>
  create(AnySchema, {
    typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec",
    value: new TextEncoder().encode(text),
  });
const mode = (path: string): string => (statSync(path).mode & 0o7777).toString(8);

test("a bundle has containerd's folders, modes and links, and the spec byte for byte", async () => {
  const text = '{"ociVersion" : "1.2.0", "process":{"rlimits":[{"hard":18446744073709551615}]}}\n';
  const bundle = await createBundle(folders(), "default", "web", spec(text));
  expect(bundle.path).toBe(join(folder, "state/default/web"));
  expect(readdirSync(bundle.path).sort()).toEqual(["config.json", "rootfs", "work"]);
  expect(readFileSync(join(bundle.path, "config.json"), "utf8")).toBe(text);
  expect(readlinkSync(join(bundle.path, "work"))).toBe(join(folder, "root/default/web"));
  expect([bundle.path, join(bundle.path, ".."), join(bundle.path, "rootfs"), bundle.work].map(mode)).toEqual([
    "700",
    "711",
    "711",
    "711",
  ]);
  await deleteBundle(bundle);
  expect(readdirSync(join(folder, "state/default"))).toEqual([]);
  expect(readdirSync(join(folder, "root/default"))).toEqual([]);
  await deleteBundle(bundle);
});

test("root of a user namespace may pass by its group", async () => {
  const text =
    '{"linux":{"gidMappings":[{"containerID":1,"hostID":5,"size":1},{"hostID":231072,"size":65536}]}}';
  const bundle = await createBundle(folders(), "default", "userns", spec(text));
  expect(mode(bundle.path)).toBe("710");
  expect(statSync(bundle.path).gid).toBe(231072);
});

test("what an earlier task left is removed", async () => {
  const left = bundleAt(folders(), "default", "web");
  mkdirSync(join(left.path, "rootfs"), { recursive: true });
  mkdirSync(left.work, { recursive: true });
  writeFileSync(join(left.path, "address"), "old");
  writeFileSync(join(left.work, "old"), "");
  const bundle = await createBundle(folders(), "default", "web");
  expect(readdirSync(bundle.path).sort()).toEqual(["rootfs", "work"]);
  expect(readdirSync(bundle.work)).toEqual([]);
});

test("an id that is no identifier makes no folder", async () => {
  await expect(createBundle(folders(), "default", "../x")).rejects.toThrow(
    /^invalid task id \.\.\/x: identifier/,
  );
  await expect(createBundle(folders(), "default", "bad", spec("[]"))).rejects.toThrow(/no JSON object/);
  expect(existsSync(join(folder, "state"))).toBe(false);
});

test("files in the rootfs are not removed: they may be a container's", async () => {
  const bundle = await createBundle(folders(), "default", "web");
  writeFileSync(join(bundle.path, "rootfs/precious"), "");
  await expect(deleteBundle(bundle)).rejects.toThrow(/failed to remove bundle rootfs/);
  expect(existsSync(join(bundle.path, "rootfs/precious"))).toBe(true);
});

test("a work link that leads elsewhere is not followed", async () => {
  const bundle = await createBundle(folders(), "default", "web");
  const elsewhere = join(folder, "elsewhere");
  mkdirSync(elsewhere);
  rmSync(join(bundle.path, "work"));
  (await import("node:fs")).symlinkSync(elsewhere, join(bundle.path, "work"));
  await deleteBundle(bundle);
  expect(existsSync(elsewhere)).toBe(true);
});
