import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { makeNode } from "../../linux/inode.ts";
import { MountFlag, mount, UnmountFlag, unmount } from "../../linux/mount.ts";
import { setXattr } from "../../linux/xattr.ts";
import { UnclearLayers } from "./layer-files.ts";
import { readInRoot } from "./root-files.ts";

const CHARACTER_DEVICE = 0o020000;
const OPAQUE = "trusted.overlay.opaque";
const folder = mkdtempSync(join(tmpdir(), "bk-layers-"));
afterAll(() => rmSync(folder, { recursive: true }));

type Layer = (path: (name: string) => string) => void;

const file =
  (name: string, text: string): Layer =>
  (path) => {
    mkdirSync(dirname(path(name)), { recursive: true });
    writeFileSync(path(name), text);
  };
const whiteout =
  (name: string): Layer =>
  (path) => {
    mkdirSync(dirname(path(name)), { recursive: true });
    makeNode(path(name), CHARACTER_DEVICE, 0n);
  };
const opaque =
  (name: string): Layer =>
  (path) => {
    mkdirSync(path(name), { recursive: true });
    setXattr(path(name), OPAQUE, Buffer.from("y"));
  };

let sequence = 0;

/** Folders of the layers, nearest first. */
function layersOf(layers: readonly Layer[]): string[] {
  const at = join(folder, `${++sequence}`);
  return layers.map((make, index) => {
    const root = join(at, `${index}`);
    mkdirSync(root, { recursive: true });
    make((name) => join(root, name));
    return root;
  });
}

function shownByOverlay(layers: readonly string[], path: string): string | undefined {
  const target = join(dirname(layers[0] ?? ""), "mounted");
  mkdirSync(target);
  const data = `lowerdir=${layers.join(":")}`;
  mount({ source: "overlay", target, type: "overlay", flags: MountFlag.readOnly, data });
  try {
    return readInRoot(target, path);
  } finally {
    unmount(target, UnmountFlag.detach);
  }
}

const nothing: Layer = () => undefined;
const both =
  (...made: readonly Layer[]): Layer =>
  (path) => {
    for (const make of made) make(path);
  };

const isRoot = process.getuid?.() === 0;
if (!isRoot) process.stdout.write("skipped: layers beside a real overlay: mounts need root\n");

test.skipIf(!isRoot).each<[string, readonly Layer[], string | undefined]>([
  ["the only one", [nothing, file("etc/passwd", "low")], "low"],
  ["the nearest", [file("etc/passwd", "high"), file("etc/passwd", "low")], "high"],
  ["behind another file", [file("etc/group", "g"), nothing, file("etc/passwd", "low")], "low"],
  ["nowhere", [nothing, file("etc/group", "g")], undefined],
  ["taken away", [whiteout("etc/passwd"), file("etc/passwd", "low")], undefined],
  ["its folder taken away", [whiteout("etc"), file("etc/passwd", "low")], undefined],
  [
    "taken away and made again",
    [file("etc/passwd", "new"), whiteout("etc"), file("etc/passwd", "low")],
    "new",
  ],
  ["its folder made anew", [opaque("etc"), file("etc/passwd", "low")], undefined],
  ["in the new folder", [both(opaque("etc"), file("etc/passwd", "new")), file("etc/passwd", "low")], "new"],
])("%s", (_, made, expected) => {
  const layers = layersOf(made);
  expect(readInRoot(layers, "etc/passwd")).toBe(expected);
  expect(shownByOverlay(layers, "etc/passwd")).toBe(expected);
});

test("links and other files take a mount", () => {
  const link: Layer = (path) => symlinkSync("real", path("etc"));
  const folderOfThatName: Layer = (path) => mkdirSync(path("etc/passwd"), { recursive: true });
  for (const odd of [link, folderOfThatName, both(file("etc", "no folder"))]) {
    const layers = layersOf([nothing, odd, file("etc/passwd", "low")]);
    expect(() => readInRoot(layers, "etc/passwd")).toThrow(UnclearLayers);
  }
});

test.skipIf(!isRoot)("a folder that was moved takes a mount", () => {
  const moved: Layer = (path) => {
    mkdirSync(path("etc"));
    setXattr(path("etc"), "trusted.overlay.redirect", Buffer.from("/other"));
  };
  expect(() => readInRoot(layersOf([moved, file("etc/passwd", "low")]), "etc/passwd")).toThrow(UnclearLayers);
});
