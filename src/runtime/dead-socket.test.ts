import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeDeadSocket } from "./dead-socket.ts";

test("a socket goes once nobody listens on it, and nothing else does", async () => {
  const folder = mkdtempSync(join(tmpdir(), "dead-socket-"));
  const remove = (name: string) =>
    removeDeadSocket({ version: 3, protocol: "ttrpc", address: `unix://${join(folder, name)}` });
  try {
    const path = join(folder, "live");
    const server = createServer().listen(path);
    await new Promise((resolve) => server.once("listening", resolve));
    await remove("live");
    expect(existsSync(path)).toBe(true);
    await new Promise((resolve) => server.close(resolve));
    const script = `require("net").createServer().listen(${JSON.stringify(path)}, () => console.log("listens"))`;
    const killed = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    await killed.stdout.getReader().read();
    killed.kill("SIGKILL");
    await killed.exited;
    expect(existsSync(path)).toBe(true);
    await remove("live");
    expect(existsSync(path)).toBe(false);
    writeFileSync(join(folder, "file"), "");
    await remove("file");
    expect(existsSync(join(folder, "file"))).toBe(true);
    await remove("none");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
