import { expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeEmptyCgroups } from "./cgroup.ts";

test("empty cgroups go in every hierarchy; what is in use stays, and everything above", async () => {
  const root = mkdtempSync(join(tmpdir(), "cgroup-"));
  try {
    for (const path of ["pids/ns/web/child", "memory/ns/web", "cpu/ns/web", "ns/web"]) {
      mkdirSync(join(root, path), { recursive: true });
    }
    // Unlike a cgroup's, a folder's files keep it.
    writeFileSync(join(root, "cpu/ns/web/process"), "");
    await removeEmptyCgroups("/ns/web", root);
    expect(
      ["pids/ns", "memory/ns", "cpu/ns/web/process", "ns"].map((path) => existsSync(join(root, path))),
    ).toEqual([true, true, true, true]);
    expect(["pids/ns/web", "memory/ns/web", "ns/web"].map((path) => existsSync(join(root, path)))).toEqual([
      false,
      false,
      false,
    ]);
    for (const path of ["", "/", "/..", "/ns/../..", "a.slice:b:c"]) await removeEmptyCgroups(path, root);
    expect(existsSync(join(root, "pids/ns"))).toBe(true);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
