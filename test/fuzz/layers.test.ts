/** Hostile layers: none leaves the root, each error names the entry, whatever pieces the archive comes in. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LayerWriter } from "../../src/diff/layer.ts";
import { TarReader } from "../../src/diff/tar/reader.ts";
import { treeOf } from "../support/mounts.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type HostileLayer, hostileLayers } from "./hostile-layers.ts";

const folder = temporaryFolder();
afterAll(() => removeFolder(folder));

let count = 0;

/** A root with a folder of secrets beside it. */
function prepare(): { root: string; outside: string } {
  const home = join(folder, String(count++));
  const [root, outside] = [join(home, "root"), join(home, "outside")];
  mkdirSync(root, { recursive: true });
  mkdirSync(join(outside, "secret.d"), { recursive: true });
  writeFileSync(join(outside, "secret"), "secret");
  chmodSync(join(outside, "secret"), 0o600);
  return { root, outside };
}

function apply(
  root: string,
  { bytes, limits }: HostileLayer,
  whiteouts: "overlay" | "remove",
  pieceBytes: number,
): void {
  const target = { root, lowers: [], whiteouts, makesDevices: true, syncs: true };
  const writer = new LayerWriter(target, limits);
  try {
    const reader = new TarReader(writer);
    for (let at = 0; at < bytes.length; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
    reader.finish();
    writer.finish();
  } finally {
    writer.close();
  }
}

/** The outside without times of access; what a layer may not touch. */
function withoutRoot(home: string): unknown {
  return Object.entries(treeOf(join(home, "outside")));
}

const titles = Object.keys(hostileLayers("/outside"));

test("there are enough of them", () => {
  expect(titles.length).toBeGreaterThanOrEqual(40);
});

for (const whiteouts of ["overlay", "remove"] as const) {
  describe(whiteouts, () => {
    test.each(titles)("%s", (title) => {
      for (const pieceBytes of [1 << 20, 100]) {
        const { root, outside } = prepare();
        const home = join(root, "..");
        const layer = hostileLayers(outside)[title];
        if (layer === undefined) throw new Error(title);
        const before = withoutRoot(home);
        const attempt = () => apply(root, layer, whiteouts, pieceBytes);
        if (layer.refused === undefined || (layer.only ?? whiteouts) !== whiteouts) attempt();
        else expect(attempt).toThrow(layer.refused);
        expect(withoutRoot(home)).toEqual(before);
        expect(existsSync(join(home, "new"))).toBe(false);
      }
    });
  });
}
