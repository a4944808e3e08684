import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { silentLogger } from "../lib/log.ts";
import { bind } from "../transport/registry.ts";
import { Endpoint, parseTcpAddress } from "./endpoint.ts";
import { createMetrics } from "./metrics.ts";
import { debugPages, metricsPages } from "./pages.ts";

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const endpoint of opened.splice(0)) await endpoint.close();
});

async function open(endpoint: Endpoint): Promise<Endpoint> {
  await endpoint.start();
  opened.push(endpoint);
  return endpoint;
}

test("metrics count calls by method and code, and commits", async () => {
  const bindings = [bind(Version, {})];
  const metrics = createMetrics({ histogram: true, version: "1", revision: "r" });
  metrics.addServices(bindings);
  const service = Version.typeName;
  metrics.observeStart("", "");
  for (const code of ["OK", "OK", "NotFound"]) {
    metrics.observeStart(service, "Version");
    metrics.observeCall({ service, method: "Version", protocol: "grpc", code, seconds: 0.02 });
  }
  metrics.observeCall({ service: "", method: "", protocol: "grpc", code: "Unimplemented", seconds: 0 });
  metrics.observeCommit({ batchSize: 3, fsyncSeconds: 0.002 });
  let ready = false;
  const pages = metricsPages(metrics.registry, () => ready);
  const endpoint = await open(
    new Endpoint({ host: "127.0.0.1", port: 0 }, { name: "metrics", pages, logger: silentLogger }),
  );
  const base = `http://127.0.0.1:${endpoint.port}`;
  const text = await (await fetch(`${base}/v1/metrics`)).text();
  const labels = `grpc_type="unary",grpc_service="${service}",grpc_method="Version"`;
  expect(text).toContain(`grpc_server_started_total{${labels}} 3\n`);
  expect(text).toContain(`grpc_server_handled_total{${labels},grpc_code="OK"} 2\n`);
  expect(text).toContain(`grpc_server_handled_total{${labels},grpc_code="NotFound"} 1\n`);
  expect(text).toContain(`grpc_service="unknown",grpc_method="unknown",grpc_code="Unimplemented"} 1\n`);
  expect(text).toContain(`grpc_server_handling_seconds_bucket{${labels},le="0.025"} 3\n`);
  expect(text).toContain("bunkerd_bolt_commits_total 1\n");
  expect(text).toContain('bunkerd_bolt_batch_size_bucket{le="4"} 1\n');
  expect(Number(/^process_resident_memory_bytes (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(1 << 20);
  expect((await fetch(`${base}/healthz`)).status).toBe(503);
  ready = true;
  expect((await fetch(`${base}/healthz`)).status).toBe(200);
  expect((await fetch(`${base}/constructor`)).status).toBe(404);
  expect((await fetch(`${base}/v1/metrics`, { method: "POST" })).status).toBe(405);
});

test("the debug socket belongs to its owner and goes when it closes", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-http-"));
  try {
    const path = join(folder, "debug.sock");
    const pages = debugPages(() => ({ calls: 5n }));
    const endpoint = await open(new Endpoint({ path }, { name: "debug", pages, logger: silentLogger }));
    expect(statSync(path).mode & 0o777).toBe(0o660);
    const answer = await fetch("http://localhost/debug/vars", { unix: path });
    expect(await answer.json()).toEqual({ calls: "5" });
    expect((await fetch("http://localhost/debug/heap", { unix: path })).status).toBe(200);
    await endpoint.close();
    expect(() => statSync(path)).toThrow("ENOENT");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a taken port is an error that names it", async () => {
  const options = { name: "metrics", pages: {}, logger: silentLogger };
  const first = await open(new Endpoint({ host: "127.0.0.1", port: 0 }, options));
  const second = new Endpoint({ host: "127.0.0.1", port: first.port ?? 0 }, options);
  await expect(second.start()).rejects.toThrow(`listen on 127.0.0.1:${first.port} for metrics`);
});

test("addresses are Go's", () => {
  expect(parseTcpAddress("127.0.0.1:1338")).toEqual({ host: "127.0.0.1", port: 1338 });
  expect(parseTcpAddress("[::1]:0")).toEqual({ host: "::1", port: 0 });
  expect(parseTcpAddress(":80")).toEqual({ host: "::", port: 80 });
  for (const bad of ["", "host", "host:99999", "a:b", "::1:80"])
    expect(() => parseTcpAddress(bad)).toThrow("is not host:port");
});
