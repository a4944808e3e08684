import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveRuntime, shimProgram } from "./runtime-path.ts";

test.each([
  ["io.containerd.runc.v2", "containerd-shim-runc-v2"],
  ["io.containerd.kata-qemu.v2", "containerd-shim-kata-qemu-v2"],
  ["runc.v2", "containerd-shim-runc-v2"],
  ["runc", undefined],
  [".v2", undefined],
])("%s names %s", (runtime, program) => {
  expect(shimProgram(runtime)).toBe(program);
});

test("a shim is found by its path and beside the daemon", () => {
  const folder = mkdtempSync(join(tmpdir(), "runtime-path-"));
  try {
    const shim = join(folder, "containerd-shim-bunkerdtest-v9");
    writeFileSync(shim, "", { mode: 0o755 });
    expect(resolveRuntime(shim)).toBe(shim);
    expect(resolveRuntime("io.containerd.bunkerdtest.v9", join(folder, "bunkerd"))).toBe(shim);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.each([
  ["", "no runtime name"],
  ["/none/shim", "invalid custom binary path: stat /none/shim: no such file or directory"],
  ["a/b.c", "invalid runtime name a/b.c, correct runtime name should be"],
  ["runc", "invalid runtime name runc, correct runtime name should be"],
  [
    "io.containerd.none.v9",
    'runtime "io.containerd.none.v9" binary not installed "containerd-shim-none-v9": file does not exist',
  ],
])("%p is refused", (runtime, message) => {
  expect(() => resolveRuntime(runtime)).toThrow(message);
});
