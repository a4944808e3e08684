import type { MetricsRegistry } from "../lib/metrics.ts";
import type { Page } from "./endpoint.ts";

/** Pages of the metrics address. `ready` is false while the daemon starts or stops. */
export function metricsPages(registry: MetricsRegistry, ready: () => boolean): Record<string, Page> {
  return {
    "/v1/metrics": async () =>
      new Response(await registry.text(), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      }),
    "/healthz": () => new Response(ready() ? "ok\n" : "not ready\n", { status: ready() ? 200 : 503 }),
  };
}

/** Pages of the debug socket: the daemon's state as JSON, and a heap snapshot for Chrome's DevTools. */
export function debugPages(state: () => unknown): Record<string, Page> {
  return {
    "/debug/vars": () =>
      new Response(
        `${JSON.stringify(state(), (_, value) => (typeof value === "bigint" ? String(value) : value), 2)}\n`,
        {
          headers: { "content-type": "application/json" },
        },
      ),
    "/debug/heap": () =>
      new Response(Bun.generateHeapSnapshot("v8"), { headers: { "content-type": "application/json" } }),
  };
}
