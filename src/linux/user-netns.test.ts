import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isNetworkNamespace, removeNetworkNamespace } from "./netns.ts";
import { createUserNetworkNamespace } from "./user-netns.ts";

test("a user namespace's network: root of it may change it, the ids are as asked", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-netns-"));
  const path = join(folder, "ns");
  try {
    const range = { containerId: 0, hostId: 700_000, length: 65_536 };
    await createUserNetworkNamespace(path, range, range);
    expect(isNetworkNamespace(path)).toBe(true);
    // Files of a network namespace belong to the root of the user namespace that owns it.
    const owner = ["nsenter", `--net=${path}`, "stat", "-c", "%u", "/proc/sys/net/ipv4/ping_group_range"];
    expect(Bun.spawnSync(owner).stdout.toString().trim()).toBe("700000");
    const twice = createUserNetworkNamespace(path, range, range).catch((error: unknown) => error);
    expect(await twice).toMatchObject({ code: "EEXIST" });
    const bad = createUserNetworkNamespace(join(folder, "bad"), { ...range, length: 0 }, range);
    expect(await bad.catch((error: unknown) => error)).toMatchObject({ code: "EINVAL" });
    expect(existsSync(join(folder, "bad"))).toBe(false);
  } finally {
    removeNetworkNamespace(path);
    rmSync(folder, { recursive: true });
  }
});
