/**
 * What every snapshotter does. The cases are those of containerd's `core/snapshots/testsuite`, which the table in
 * `test/integration/snapshotters.test.ts` names one by one, and ours after them. Mounts are real: it wants root.
 */
import { expect } from "bun:test";
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { ErrorCode } from "../../src/model/errors.ts";
import type { Snapshotter } from "../../src/model/snapshots.ts";
import { failureOf } from "./container-store-suite.ts";
import { contentsOf, treeOf, withMounts } from "./mounts.ts";

export interface SuiteContext {
  readonly name: "overlayfs" | "native";
  readonly snapshotter: Snapshotter;
  /** The snapshotter's root. */
  readonly root: string;
  /** An empty folder for mounts. */
  readonly work: string;
}

type Change = (root: string) => void;
type Case = (context: SuiteContext) => Promise<void>;

const labels = { "containerd.io/gc.root": "2026-01-01T00:00:00Z" };

const file =
  (path: string, content: string, mode = 0o644): Change =>
  (root) => {
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), mode);
  };
const folder =
  (path: string, mode = 0o755): Change =>
  (root) => {
    mkdirSync(join(root, path));
    chmodSync(join(root, path), mode);
  };
const gone =
  (path: string): Change =>
  (root) =>
    rmSync(join(root, path), { recursive: true });
const owned =
  (path: string, uid: number, gid: number): Change =>
  (root) =>
    chownSync(join(root, path), uid, gid);
const moved =
  (from: string, to: string): Change =>
  (root) =>
    renameSync(join(root, from), join(root, to));

function apply(root: string, changes: readonly Change[]): void {
  for (const change of changes) change(root);
}

/** A snapshotter that is reached through a daemon's namespaces fails with the same codes, in the words of these. */
export const WORDS = { compared: true };

export async function expectFailure(
  promise: Promise<unknown>,
  code: ErrorCode,
  words: RegExp,
): Promise<void> {
  const error = await failureOf(promise);
  expect(error.code).toBe(code);
  if (WORDS.compared) expect(error.message).toMatch(words);
}

async function walked(snapshotter: Snapshotter, filters?: readonly string[]): Promise<Map<string, Info>> {
  const found = new Map<string, Info>();
  await snapshotter.walk((info) => void found.set(info.name, info), filters);
  return found;
}

/** Prepares, changes and commits a layer. */
async function layer(
  { snapshotter, work }: SuiteContext,
  name: string,
  parent: string,
  changes: readonly Change[],
): Promise<void> {
  const key = `${name}-active`;
  const mounts = await snapshotter.prepare(key, parent, labels);
  await withMounts(mounts, join(work, name), (root) => apply(root, changes));
  await snapshotter.commit(name, key, { labels });
}

/** A stack of layers shows, at each height, what the same changes leave in a plain folder. */
async function checkLayers(
  context: SuiteContext,
  layers: readonly (readonly Change[])[],
  read = contentsOf,
): Promise<void> {
  const { snapshotter, work } = context;
  const plain = join(work, "plain");
  mkdirSync(plain);
  let parent = "";
  for (const [index, changes] of layers.entries()) {
    const name = `layer-${index}`;
    await layer(context, name, parent, changes);
    apply(plain, changes);
    for (const make of ["view", "prepare"] as const) {
      const mounts = await snapshotter[make](`look-${index}`, name, labels);
      await withMounts(mounts, join(work, "look"), (root) => expect(read(root)).toEqual(read(plain)));
      await snapshotter.remove(`look-${index}`);
    }
    parent = name;
  }
}

/** Modes and owners too. */
function permissionsOf(root: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(treeOf(root)).map(([path, { type, mode, owner }]) => [path, `${type} ${mode} ${owner}`]),
  );
}

/** containerd's base set: c1, c2 over it, a1 and v1 over c2, a2 and v2 over nothing. */
async function baseSnapshots(snapshotter: Snapshotter): Promise<Map<string, { kind: Kind; parent: string }>> {
  await snapshotter.prepare("c1-a", "", labels);
  await snapshotter.commit("c1", "c1-a", { labels });
  await snapshotter.prepare("c2-a", "c1", labels);
  await snapshotter.commit("c2", "c2-a", { labels });
  await snapshotter.prepare("a1", "c2", labels);
  await snapshotter.prepare("a2", "", labels);
  await snapshotter.view("v1", "c2", labels);
  await snapshotter.view("v2", "", labels);
  return new Map([
    ["a1", { kind: Kind.ACTIVE, parent: "c2" }],
    ["a2", { kind: Kind.ACTIVE, parent: "" }],
    ["c1", { kind: Kind.COMMITTED, parent: "" }],
    ["c2", { kind: Kind.COMMITTED, parent: "c1" }],
    ["v1", { kind: Kind.VIEW, parent: "c2" }],
    ["v2", { kind: Kind.VIEW, parent: "" }],
  ]);
}

function nanoseconds(info: Info, field: "createdAt" | "updatedAt"): bigint {
  const time = info[field];
  return time === undefined ? 0n : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

async function basic(context: SuiteContext): Promise<void> {
  const { snapshotter, work } = context;
  const first = [file("foo", "foo\n", 0o777), folder("a"), folder("a/b"), folder("a/b/c")];
  const second = [file("bar", "bar\n", 0o777), file("foo", "bar\n", 0o777), gone("a/b")];
  await layer(context, "committed", "", first);
  const committed = await snapshotter.stat("committed");
  expect([committed.kind, committed.parent]).toEqual([Kind.COMMITTED, ""]);
  await expectFailure(snapshotter.stat("committed-active"), "NotFound", /snapshot does not exist/);

  const mounts = await snapshotter.prepare("next", "committed", labels);
  await withMounts(mounts, join(work, "next"), (root) => {
    expect(contentsOf(root)).toEqual({
      "": "folder",
      foo: "foo\n",
      a: "folder",
      "a/b": "folder",
      "a/b/c": "folder",
    });
    apply(root, second);
  });
  const active = await snapshotter.stat("next");
  expect([active.kind, active.parent]).toEqual([Kind.ACTIVE, "committed"]);
  await snapshotter.commit("next-committed", "next", { labels });
  const next = await snapshotter.stat("next-committed");
  expect([next.kind, next.parent]).toEqual([Kind.COMMITTED, "committed"]);
  expect(await walked(snapshotter)).toEqual(
    new Map([
      ["committed", committed],
      ["next-committed", next],
    ]),
  );
  await withMounts(await snapshotter.view("seen", "next-committed"), join(work, "seen"), (root) =>
    expect(contentsOf(root)).toEqual({ "": "folder", foo: "bar\n", bar: "bar\n", a: "folder" }),
  );
  await snapshotter.remove("seen");
  await expectFailure(snapshotter.remove("committed"), "FailedPrecondition", /remove/);
  await snapshotter.remove("next-committed");
  await snapshotter.remove("committed");
}

async function update({ snapshotter }: SuiteContext): Promise<void> {
  for (const [name, { kind, parent }] of await baseSnapshots(snapshotter)) {
    const before = await snapshotter.stat(name);
    expect(before).toMatchObject({ name, kind, parent });
    expect(nanoseconds(before, "createdAt")).toBe(nanoseconds(before, "updatedAt"));
    const wanted = { l1: "v1", l2: "v2", l3: "v3", ...labels };
    const all = await snapshotter.update({ ...before, parent: "doesnotexist", labels: wanted });
    expect(all).toMatchObject({ name, kind, parent });
    expect(all.labels).toEqual(wanted);
    expect(all.createdAt).toEqual(before.createdAt);
    expect(nanoseconds(all, "updatedAt")).toBeGreaterThan(nanoseconds(before, "updatedAt"));
    expect(await snapshotter.stat(name)).toEqual(all);
    const some = await snapshotter.update({ ...all, labels: { l1: "updated" } }, ["labels.l1"]);
    expect(some.labels).toEqual({ ...wanted, l1: "updated" });
    const removed = await snapshotter.update({ ...all, labels: {} }, ["labels.l1"]);
    expect(removed.labels).toEqual({ l2: "v2", l3: "v3", ...labels });
    const replaced = await snapshotter.update({ ...all, labels: { l4: "v4" } }, ["labels"]);
    expect(replaced.labels).toEqual({ l4: "v4" });
    await expectFailure(
      snapshotter.update(all, ["parent"]),
      "InvalidArgument",
      new RegExp(`cannot update "parent" field on snapshot "${name}"`),
    );
  }
  const unknown = { ...(await snapshotter.stat("c1")), name: "missing" };
  await expectFailure(snapshotter.update(unknown), "NotFound", /snapshot does not exist/);
}

async function remove({ snapshotter }: SuiteContext): Promise<void> {
  await snapshotter.prepare("committed-a", "", labels);
  await snapshotter.commit("committed-1", "committed-a", { labels });
  await snapshotter.prepare("reuse-1", "committed-1", labels);
  await snapshotter.remove("reuse-1");
  await snapshotter.view("reuse-1", "committed-1", labels);
  await snapshotter.remove("reuse-1");
  await snapshotter.prepare("reuse-1", "", labels);
  await snapshotter.remove("committed-1");
  await snapshotter.commit("committed-1", "reuse-1", { labels });
}

async function walk({ snapshotter }: SuiteContext): Promise<void> {
  const base = await baseSnapshots(snapshotter);
  for (const name of base.keys()) {
    const info = await snapshotter.stat(name);
    await snapshotter.update({ ...info, labels: { name, [`is_${name}`]: "yes" } });
  }
  const names = async (...filters: string[]): Promise<string[]> => [
    ...(await walked(snapshotter, filters)).keys(),
  ];
  expect(await names()).toEqual([...base.keys()]);
  expect(await names("kind==active")).toEqual(["a1", "a2"]);
  expect(await names("kind==view")).toEqual(["v1", "v2"]);
  expect(await names("kind==committed")).toEqual(["c1", "c2"]);
  expect(await names("kind!=active")).toEqual(["c1", "c2", "v1", "v2"]);
  expect(await names("parent==c2")).toEqual(["a1", "v1"]);
  expect(await names('parent==""')).toEqual(["a2", "c1", "v2"]);
  expect(await names("name==a1")).toEqual(["a1"]);
  expect(await names("labels.name==v2", "labels.is_a2==yes")).toEqual(["a2", "v2"]);
  await expectFailure(names("=="), "InvalidArgument", /./);
}

async function prepareView({ snapshotter }: SuiteContext): Promise<void> {
  await snapshotter.prepare("preparing", "");
  await snapshotter.commit("a", "preparing");
  const again = [
    ["prepare", "view"],
    ["prepare", "prepare"],
    ["view", "view"],
    ["view", "prepare"],
  ] as const;
  for (const [index, [first, second]] of again.entries()) {
    await snapshotter[first](`key-${index}`, "a");
    await expectFailure(
      snapshotter[second](`key-${index}`, "a"),
      "AlreadyExists",
      new RegExp(`^failed to create snapshot: snapshot key-${index}: already exists$`),
    );
  }
}

async function intermediate(context: SuiteContext): Promise<void> {
  const { snapshotter } = context;
  await layer(context, "base", "", []);
  await layer(context, "middle", "base", []);
  await snapshotter.prepare("top", "middle");
  await expectFailure(
    snapshotter.remove("middle"),
    "FailedPrecondition",
    /^failed to remove( snapshot middle)?: cannot remove snapshot with child: failed precondition$/,
  );
  for (const name of ["top", "middle", "base"]) await snapshotter.remove(name);
  expect((await walked(snapshotter)).size).toBe(0);
}

async function viewReadonly(context: SuiteContext): Promise<void> {
  const { snapshotter, work } = context;
  await layer(context, "committed", "", [file("readonly", "ro")]);
  await layer(context, "second", "committed", [file("more", "m")]);
  for (const parent of ["committed", "second", ""]) {
    const mounts = await snapshotter.view(`view-${parent}`, parent);
    await withMounts(mounts, join(work, `view-${parent}`), (root) => {
      const write = (): void => writeFileSync(join(root, "file"), "x");
      expect(write).toThrow(/EROFS/);
    });
    await expectFailure(snapshotter.commit("never", `view-${parent}`), "FailedPrecondition", /is not active/);
  }
}

async function rename(context: SuiteContext): Promise<void> {
  const first = [
    folder("dir1", 0o700),
    folder("somefiles", 0o700),
    file("somefiles/f1", "was here first!"),
    file("somefiles/f2", "nothing interesting"),
  ];
  const second = [
    file("somefiles/f1-overwrite", "new content 1"),
    moved("somefiles/f1-overwrite", "somefiles/f1"),
    moved("somefiles/f2", "somefiles/f3"),
  ];
  // overlayfs does not move folders of a lower layer without redirect_dir.
  if (context.name === "native") second.push(moved("dir1", "dir2"));
  await checkLayers(context, [first, second]);
}

async function manyLayers(context: SuiteContext): Promise<void> {
  const { snapshotter, work } = context;
  const expected: Record<string, string> = { "": "folder" };
  let parent = "";
  for (let index = 0; index < 128; index++) {
    const content = `layer ${index}`;
    await layer(context, `l${index}`, parent, [file(`f${index}`, content), file("same", content)]);
    expected[`f${index}`] = content;
    expected["same"] = content;
    parent = `l${index}`;
  }
  await withMounts(await snapshotter.view("all", parent), join(work, "all"), (root) =>
    expect(contentsOf(root)).toEqual(expected),
  );
}

async function usage(context: SuiteContext): Promise<void> {
  const { snapshotter, work } = context;
  const mounts = await snapshotter.prepare("active", "");
  const empty = await snapshotter.usage("active");
  expect(empty.inodes).toBe(1n);
  await withMounts(mounts, join(work, "active"), (root) => {
    apply(root, [file("a", "x".repeat(10_000)), folder("d"), file("d/b", "y")]);
    linkSync(join(root, "a"), join(root, "d/again"));
  });
  const full = await snapshotter.usage("active");
  expect(full.inodes).toBe(4n);
  expect(full.size - empty.size).toBeGreaterThanOrEqual(10_000n);
  expect(full.size - empty.size).toBeLessThan(40_000n);
  await snapshotter.commit("committed", "active");
  expect(await snapshotter.usage("committed")).toEqual(full);
  await snapshotter.view("view", "committed");
  expect(await snapshotter.usage("view")).toEqual({ size: 0n, inodes: 0n });
  await expectFailure(snapshotter.usage("missing"), "NotFound", /snapshot does not exist/);
}

async function mountsAgain({ snapshotter }: SuiteContext): Promise<void> {
  const given = new Map<string, Mount[]>();
  await baseSnapshots(snapshotter);
  given.set("p", await snapshotter.prepare("p", "c2"));
  given.set("v", await snapshotter.view("v", "c2"));
  given.set("w", await snapshotter.view("w", ""));
  for (const [key, mounts] of given) expect(await snapshotter.mounts(key)).toEqual(mounts);
  await expectFailure(
    snapshotter.mounts("c1"),
    "FailedPrecondition",
    /requested snapshot c1 not active or view: failed precondition$/,
  );
  await expectFailure(snapshotter.mounts("missing"), "NotFound", /snapshot does not exist: not found$/);
}

async function commitErrors({ snapshotter }: SuiteContext): Promise<void> {
  await baseSnapshots(snapshotter);
  const commit = (name: string, key: string, parent?: string) => snapshotter.commit(name, key, { parent });
  await expectFailure(
    commit("c1", "a1"),
    "AlreadyExists",
    /^failed to commit snapshot( a1)?: committed snapshot c1: /,
  );
  await expectFailure(commit("new", "missing"), "NotFound", /snapshot does not exist/);
  await expectFailure(commit("new", "c1"), "FailedPrecondition", /snapshot "c1" is not active/);
  await expectFailure(commit("new", "v1"), "FailedPrecondition", /snapshot "v1" is not active/);
  await expectFailure(
    commit("new", "a1", "c1"),
    "InvalidArgument",
    /cannot change parent of active snapshot "a1"/,
  );
  await expectFailure(
    commit("new", "a2", "missing"),
    "NotFound",
    /missing parent "missing" of snapshot "a2"/,
  );
  await expectFailure(commit("new", "a2", "v1"), "FailedPrecondition", /parent "v1" is not committed/);
  expect((await snapshotter.stat("a2")).kind).toBe(Kind.ACTIVE);
  await commit("rebased", "a2", "c2");
  expect(await snapshotter.stat("rebased")).toMatchObject({ kind: Kind.COMMITTED, parent: "c2", labels: {} });
  await expectFailure(snapshotter.remove("c2"), "FailedPrecondition", /with child/);
}

async function parentErrors({ snapshotter }: SuiteContext): Promise<void> {
  await baseSnapshots(snapshotter);
  await expectFailure(snapshotter.prepare("x", "missing"), "NotFound", /missing parent "missing" bucket/);
  await expectFailure(
    snapshotter.prepare("x", "a1"),
    "InvalidArgument",
    /parent "a1" is not committed snapshot/,
  );
  await expectFailure(
    snapshotter.view("x", "v1"),
    "InvalidArgument",
    /parent "v1" is not committed snapshot/,
  );
  await expectFailure(snapshotter.stat("x"), "NotFound", /snapshot does not exist/);
}

/** Keys are no paths, whatever they look like; what the database cannot hold is the caller's fault. */
async function hostileKeys({ snapshotter, root }: SuiteContext): Promise<void> {
  const before = readdirSync(join(root, "..")).sort();
  for (const key of ["..", "../../x", "/etc/passwd", "a\0b", "\n", "ü", " ", "x".repeat(32_000)]) {
    await snapshotter.prepare(key, "");
    expect((await snapshotter.stat(key)).name).toBe(key);
    await snapshotter.commit(`${key.slice(1)}-c`, key);
    await snapshotter.remove(`${key.slice(1)}-c`);
  }
  await expectFailure(snapshotter.prepare("", ""), "InvalidArgument", /required/);
  await expectFailure(snapshotter.prepare("x".repeat(2 << 20), ""), "InvalidArgument", /2097152 bytes/);
  const badLabel = snapshotter.prepare("labelled", "", { "": "x" });
  await expectFailure(badLabel, "InvalidArgument", /key required/);
  await snapshotter.cleanup();
  expect((await walked(snapshotter)).size).toBe(0);
  expect(readdirSync(join(root, "snapshots"))).toEqual([]);
  expect(readdirSync(join(root, "..")).sort()).toEqual(before);
}

async function atOnce(context: SuiteContext): Promise<void> {
  const { snapshotter } = context;
  await layer(context, "base", "", [file("f", "x")]);
  const outcomes = await Promise.allSettled([
    ...Array.from({ length: 20 }, (_, index) => snapshotter.prepare(`key-${index}`, "base")),
    ...Array.from({ length: 5 }, () => snapshotter.prepare("same", "base")),
  ]);
  const made = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  expect(made.length).toBe(21);
  expect(new Set(made.map((mounts) => JSON.stringify(mounts))).size).toBe(21);
  await Promise.all([
    ...Array.from({ length: 10 }, (_, index) => snapshotter.remove(`key-${index}`)),
    snapshotter.cleanup(),
    ...Array.from({ length: 5 }, (_, index) => snapshotter.prepare(`more-${index}`, "base")),
  ]);
  for (const [name, { kind }] of await walked(snapshotter)) {
    if (kind !== Kind.ACTIVE) continue;
    for (const { source, options } of await snapshotter.mounts(name)) {
      const upper = options.find((option) => option.startsWith("upperdir="))?.slice("upperdir=".length);
      expect(statSync(upper ?? source).isDirectory()).toBe(true);
    }
  }
}

/** By title. */
export const SNAPSHOTTER_CASES: Readonly<Record<string, Case>> = {
  "layers on layers": basic,
  "an active snapshot's info": async ({ snapshotter }) => {
    await snapshotter.prepare("a", "");
    expect(await snapshotter.stat("a")).toMatchObject({ name: "a", parent: "", kind: Kind.ACTIVE });
  },
  "a committed snapshot's info": async ({ snapshotter }) => {
    await snapshotter.prepare("a", "");
    await snapshotter.commit("c", "a");
    expect(await snapshotter.stat("c")).toMatchObject({ name: "c", parent: "", kind: Kind.COMMITTED });
  },
  "parents of parents": async (context) => {
    await layer(context, "a", "", []);
    await layer(context, "b", "a", []);
    const { parent } = await context.snapshotter.stat("b");
    expect(parent).toBe("a");
    expect((await context.snapshotter.stat(parent)).parent).toBe("");
  },
  "a key twice": prepareView,
  "labels change, the rest does not": update,
  "keys and names are free again": remove,
  "filters choose": walk,
  "a file of a lower layer is replaced": (context) =>
    checkLayers(context, [
      [folder("etc", 0o700), file("etc/hosts", "mydomain 10.0.0.1"), file("etc/profile", "PATH=/usr/bin")],
      [
        file("etc/hosts", "mydomain 10.0.0.2"),
        file("etc/profile", "PATH=/usr/bin:/bin", 0o666),
        folder("root", 0o700),
      ],
      [file("root/.bashrc", "PATH=/usr/sbin:/usr/bin")],
    ]),
  "a folder of a lower layer is removed": (context) =>
    checkLayers(context, [
      [folder("dir1", 0o700), file("dir1/f1", "1")],
      [gone("dir1")],
      [folder("dir1", 0o700), file("dir1/f2", "2")],
    ]),
  "owners change": (context) =>
    checkLayers(
      context,
      [
        [
          folder("opt", 0o700),
          folder("opt/a", 0o700),
          folder("opt/a/b", 0o700),
          file("opt/a/b/file.txt", "hello"),
        ],
        [owned("opt", 1, 1), owned("opt/a/b/file.txt", 1, 1)],
      ],
      permissionsOf,
    ),
  "modes of folders outlive the commit": (context) =>
    checkLayers(
      context,
      [
        ["dir1", "dir2", "dir3", "dir4", "dir5"].map((name) => folder(name, 0o700)),
        [
          file("dir4/f1", "..."),
          owned("dir1", 1, 1),
          owned("dir4/f1", 1, 1),
          folder("dir6", 0o1777),
          gone("dir2"),
        ],
        [owned("dir5", 2, 2), folder("dir2", 0o750)],
      ],
      permissionsOf,
    ),
  "a layer between two others stays": intermediate,
  "files removed in a child": (context) =>
    checkLayers(context, [
      [file("foo", "foo\n", 0o777), file("foobar", "foobar\n", 0o777)],
      [gone("foobar")],
      [],
    ]),
  "a file of a lower layer is moved": (context) =>
    checkLayers(context, [
      [folder("dir1", 0o700), file("dir1/f1", "Hello", 0o644), folder("dir2", 0o700)],
      [moved("dir1/f1", "dir2/f2")],
    ]),
  "a view cannot be written": viewReadonly,
  "infos can be asked for while walking": async ({ snapshotter }) => {
    await baseSnapshots(snapshotter);
    const asked: Promise<Info>[] = [];
    await snapshotter.walk((info) => asked.push(snapshotter.stat(info.name)));
    expect((await Promise.all(asked)).length).toBe(6);
  },
  "closing twice": async ({ snapshotter }) => {
    await snapshotter.close();
    await snapshotter.close();
  },
  "the root's mode is 0755 whatever the umask": async ({ snapshotter, work }) => {
    const before = process.umask(0o077);
    try {
      const mounts = await snapshotter.prepare("a", "");
      await withMounts(mounts, join(work, "a"), (root) => expect(statSync(root).mode & 0o777).toBe(0o755));
    } finally {
      process.umask(before);
    }
  },
  "files are moved and replaced": rename,
  "128 layers": manyLayers,
  "usage counts blocks and inodes": usage,
  "mounts are told again": mountsAgain,
  "commits that are refused": commitErrors,
  "parents that are refused": parentErrors,
  "hostile keys": hostileKeys,
  "many at once": atOnce,
};
