import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Mount, MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { type Random, randomFrom, testSeed } from "../../test/support/random.ts";
import { digestOf } from "../../test/support/tar.ts";
import { setXattr } from "../linux/xattr.ts";
import { compareTrees } from "./changes.ts";
import { withMounts } from "./mounts.ts";
import { changesFolder } from "./overlay-changes.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === "1" ? 300 : 12;
const NAMES = ["a", "b", "c", "d", "dir", "ä", "x.y"];
const PAST = 1_600_000_000;

const folder = temporaryFolder();
afterAll(() => removeFolder(folder));

const bind = (source: string): Mount =>
  create(MountSchema, { type: "bind", source, options: ["ro", "rbind"] });
const overlay = (options: string[]): Mount =>
  create(MountSchema, { type: "overlay", source: "overlay", options: [...options, "index=off"] });

function fill(root: string, random: Random, depth = 0): void {
  for (const name of NAMES) {
    const at = join(root, name);
    const kind = random.below(depth < 2 ? 6 : 4);
    if (kind === 0) continue;
    if (kind === 1) symlinkSync(random.pick(NAMES), at);
    else if (kind <= 3) writeFileSync(at, random.text(1 + random.below(20)));
    else {
      mkdirSync(at);
      fill(at, random, depth + 1);
    }
    if (kind === 3) linkSync(at, join(root, `${name}-again`));
    if (kind > 1 && random.below(2) === 0) utimesSync(at, PAST, PAST);
  }
}

/** Paths below a folder, the folder itself not among them. */
function pathsOf(root: string, below = ""): string[] {
  return readdirSync(join(root, below), { withFileTypes: true }).flatMap((entry) => {
    const path = join(below, entry.name);
    return entry.isDirectory() ? [path, ...pathsOf(root, path)] : [path];
  });
}

const CHANGES: readonly ((at: string, random: Random, root: string) => void)[] = [
  (at) => rmSync(at, { recursive: true }),
  (at, random) => {
    rmSync(at, { recursive: true });
    mkdirSync(at);
    if (random.below(2) === 0) fill(at, random, 2);
  },
  (at, random) => {
    rmSync(at, { recursive: true });
    writeFileSync(at, random.text(5));
  },
  (at) => {
    if (!lstatSync(at).isSymbolicLink()) chmodSync(at, 0o4751);
  },
  // Copied up, and yet the same.
  (at) => {
    const { uid, gid } = lstatSync(at);
    lchownSync(at, uid, gid);
  },
  (at) => {
    if (lstatSync(at).isFile())
      setXattr(at, "security.capability", Buffer.from(`0100000200${"00".repeat(15)}`, "hex"));
  },
  (at, random, root) => {
    const to = join(root, random.text(3));
    if (lstatSync(at).isDirectory()) cpSync(at, to, { recursive: true, verbatimSymlinks: true });
    else renameSync(at, to);
  },
  (at, random, root) => {
    if (!lstatSync(at).isDirectory()) linkSync(at, join(root, random.text(3)));
  },
  (at) => {
    if (!lstatSync(at).isSymbolicLink()) utimesSync(at, PAST, PAST);
  },
  (at, random) => {
    if (lstatSync(at).isDirectory()) writeFileSync(join(at, random.text(3)), "new");
  },
  // Made, and gone again: nothing remains, or the mark of what was there before.
  (at, random) => {
    if (!lstatSync(at).isDirectory()) return;
    const name = join(at, random.pick(NAMES));
    if (lstatSync(name, { throwIfNoEntry: false }) === undefined) writeFileSync(name, "");
    rmSync(name, { recursive: true });
  },
];

function layerOf(lower: string, upper: string, changes: string | undefined): Buffer {
  const pieces: Buffer[] = [];
  const job = { lower, upper, changes, latestSeconds: undefined, credits: new SharedArrayBuffer(8) };
  compareTrees(job, (bytes) => pieces.push(Buffer.from(bytes)));
  return Buffer.concat(pieces);
}

/** The layer made either way. */
function bothWays(lower: readonly Mount[], upper: readonly Mount[]): Promise<readonly [Buffer, Buffer]> {
  const changes = changesFolder(lower, upper);
  expect(changes).toBeDefined();
  return withMounts(lower, "write", (below) =>
    withMounts(upper, "read", async (above) => [
      layerOf(below, above, changes),
      layerOf(below, above, undefined),
    ]),
  );
}

function newFolders(base: string, ...names: string[]): string[] {
  return names.map((name) => {
    mkdirSync(join(base, name), { recursive: true });
    return join(base, name);
  });
}

test.each([1, 3])("what an overlay of %i layers below names is all that differs", async (depth) => {
  const random = randomFrom(testSeed());
  for (let round = 0; round < ROUNDS; round++) {
    const base = join(folder, `${depth}-${round}`);
    const lowers = newFolders(base, ...Array.from({ length: depth }, (_, at) => `lower${at}`));
    for (const lower of lowers) fill(lower, random);
    const [upper, work] = newFolders(base, "upper", "work") as [string, string];
    const options = [`lowerdir=${lowers.join(":")}`];
    const written = [overlay([...options, `upperdir=${upper}`, `workdir=${work}`])];
    await withMounts(written, "write", async (root) => {
      for (let n = random.below(25); n > 0; n--) {
        const paths = pathsOf(root);
        if (paths.length > 0) random.pick(CHANGES)(join(root, random.pick(paths)), random, root);
      }
    });
    const seen = depth === 1 ? [bind(lowers[0] ?? "")] : [overlay(options)];
    const [fast, slow] = await bothWays(seen, written);
    const where = `seed ${random.seed}, round ${round}, ${fast.length} and ${slow.length} bytes`;
    expect(`${where}: ${digestOf(fast)}`).toBe(`${where}: ${digestOf(slow)}`);
  }
});

test("a folder that was made anew hides what was in the old one", async () => {
  const base = join(folder, "anew");
  const [lower, upper, work] = newFolders(base, "lower", "upper", "work") as [string, string, string];
  mkdirSync(join(lower, "d/in"), { recursive: true });
  writeFileSync(join(lower, "d/in/f"), "1");
  const written = [overlay([`lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`])];
  await withMounts(written, "write", async (root) => {
    rmSync(join(root, "d"), { recursive: true });
    mkdirSync(join(root, "d/in"), { recursive: true });
  });
  const [fast, slow] = await bothWays([bind(lower)], written);
  expect(fast.includes("d/in/.wh.f")).toBe(true);
  expect(digestOf(fast)).toBe(digestOf(slow));
});

test("only what the upper folder names is looked at", async () => {
  const base = join(folder, "only");
  const [lower, other, upper, work] = newFolders(base, "lower", "other", "upper", "work") as [
    string,
    string,
    string,
    string,
  ];
  writeFileSync(join(lower, "f"), "1");
  const options = [`lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`];
  writeFileSync(join(upper, "g"), "2");
  await withMounts([overlay(options)], "read", async (above) => {
    // Beside another tree the walk would find `f` as well.
    const [fast, slow] = [layerOf(other, above, upper), layerOf(other, above, undefined)];
    expect(fast.includes("f\0")).toBe(false);
    expect([fast, slow].map((layer) => layer.includes("g\0"))).toEqual([true, true]);
    expect(slow.length).toBeGreaterThan(fast.length);
  });
});

test("mounts that may have more to them are walked", () => {
  const upper = ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"];
  const below = [overlay(["lowerdir=/a:/b"])];
  expect(changesFolder(below, [overlay(upper)])).toBe("/u");
  expect(changesFolder([overlay(["lowerdir=/b", "upperdir=/a", "workdir=/x"])], [overlay(upper)])).toBe("/u");
  expect(changesFolder([bind("/a")], [overlay(["lowerdir=/a", "upperdir=/u", "workdir=/w"])])).toBe("/u");
  const others: [Mount[], Mount[]][] = [
    [[], [overlay(upper)]],
    [[bind("/a")], [overlay(upper)]],
    [[overlay(["lowerdir=/b:/a"])], [overlay(upper)]],
    [below, [overlay(["lowerdir=/a:/b"])]],
    [below, [bind("/u")]],
    [below, [overlay(upper), bind("/u")]],
    [below, [overlay([...upper, "metacopy=on"])]],
    [below, [overlay([...upper, "uidmap=0:1:1"])]],
    [below, [{ ...overlay(upper), options: upper }]],
    [below, [{ ...overlay(upper), options: [...upper, "index=on"] }]],
    [below, [{ ...overlay(upper), target: "/below" }]],
  ];
  for (const [lower, above] of others) expect(changesFolder(lower, above)).toBeUndefined();
});
