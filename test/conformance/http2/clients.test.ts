/** Clients of others against the engine behind the real listener: Node's HTTP/2 and grpc-js, curl, nghttp. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { silentLogger } from "../../../src/lib/log.ts";
import { http2Engine } from "../../../src/transport/http2/engine.ts";
import { Listener } from "../../../src/transport/listener.ts";
import { output, run } from "../../support/processes.ts";
import { startServer } from "../grpc/server.ts";
import { Conformance, pathOf } from "../grpc/service.ts";

function missing(tool: string): boolean {
  if (Bun.which(tool) !== null) return false;
  process.stdout.write(`skipped: no ${tool}\n`);
  return true;
}

describe("node", () => {
  test("grpc-js and node:http2: uploads, cancels, settings, headers", async () => {
    if (missing("node")) return;
    await using server = await startServer(http2Engine);
    const script = join(import.meta.dir, "node-client.mjs");
    const printed = await output(["node", script, server.path, Conformance.typeName]);
    const lines = printed.trim().split("\n");
    expect(Object.fromEntries(lines.map((line) => JSON.parse(line) as [string, unknown]))).toEqual({
      "64 MiB up": true,
      cancelled: true,
      "200 at once": true,
      "settings under way": true,
      "60 kB of headers": true,
      ping: true,
      connect: '{"text":"hi"}',
    });
  });
});

describe("curl --http2-prior-knowledge", () => {
  const curl = (socket: string, ...more: string[]): Promise<string> =>
    output(["curl", "-sS", "--http2-prior-knowledge", "--unix-socket", socket, ...more]);

  test("a call, and one of 12 MB each way", async () => {
    if (missing("curl")) return;
    await using server = await startServer(http2Engine);
    const url = `http://localhost${pathOf("Echo")}`;
    const json = ["-H", "content-type: application/json"];
    expect(await curl(server.path, ...json, "-d", '{"text":"hi"}', url)).toBe('{"text":"hi"}');
    const large = join(server.folder, "large.json");
    writeFileSync(large, JSON.stringify({ data: Buffer.alloc(9 << 20, 1).toString("base64") }));
    const printed = await curl(server.path, ...json, "--data-binary", `@${large}`, url);
    expect(printed.length).toBe((await Bun.file(large).text()).length);
  });
  test("what is not there, and an early refusal of a large body", async () => {
    if (missing("curl")) return;
    await using server = await startServer(http2Engine);
    const large = join(server.folder, "large");
    writeFileSync(large, Buffer.alloc(20 << 20));
    const url = "http://localhost/no/Such";
    expect(await curl(server.path, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url)).toBe(
      "2 404",
    );
    const printed = await run([
      "curl",
      "-sS",
      "--http2-prior-knowledge",
      "--unix-socket",
      server.path,
      ...["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", `@${large}`, url],
    ]);
    expect(printed.stdout).toBe("404");
  });
});

describe("nghttp", () => {
  test("priorities, padding and many streams", async () => {
    if (missing("nghttp")) return;
    const listener = new Listener({ host: "127.0.0.1", port: 0 }, { bindings: [], logger: silentLogger });
    await listener.start();
    try {
      const url = `http://127.0.0.1:${listener.port}/a`;
      const printed = await output(["nghttp", "-nv", "-m", "20", "-b", "100", "-w", "16", url]);
      expect(printed.match(/:status: 404/g)?.length).toBe(20);
      expect(printed).not.toContain("RST_STREAM");
    } finally {
      await listener.close(0);
    }
  });
});
