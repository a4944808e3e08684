import { expect, test } from "bun:test";
import { createClient, createRouterTransport, type Interceptor } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "#gen/grpc/health/v1/health_pb.ts";
import { HealthStatus, healthBinding } from "./health.ts";
import { toConnectError } from "./status.ts";

function served() {
  const health = new HealthStatus();
  const binding = healthBinding(health);
  const interceptors: Interceptor[] = [(next) => (request) => next(request).catch(rethrow)];
  const transport = createRouterTransport(({ service }) => service(binding.service, binding.implementation), {
    router: { interceptors },
  });
  return { health, client: createClient(Health, transport) };
}

function rethrow(error: unknown): never {
  throw toConnectError(error);
}

test("Check tells a status, or that the service is unknown", async () => {
  const { health, client } = served();
  expect((await client.check({})).status).toBe(Serving.SERVING);
  health.set("", "notServing");
  expect((await client.check({})).status).toBe(Serving.NOT_SERVING);
  await expect(client.check({ service: "x" })).rejects.toThrow("[not_found] unknown service");
});

test("List tells all, of which there may be 100", async () => {
  const { health, client } = served();
  health.set("a", "unknown");
  expect((await client.list({})).statuses).toMatchObject({
    "": { status: Serving.SERVING },
    a: { status: Serving.UNKNOWN },
  });
  for (let at = 0; at < 100; at++) health.set(`s${at}`, "serving");
  await expect(client.list({})).rejects.toThrow("server health list exceeds maximum capacity: 100");
});

test("Watch tells the present and each change, and leaves nothing behind", async () => {
  const { health, client } = served();
  const abort = new AbortController();
  const watch = client.watch({ service: "a" }, { signal: abort.signal })[Symbol.asyncIterator]();
  expect((await watch.next()).value?.status).toBe(Serving.SERVICE_UNKNOWN);
  const next = watch.next();
  health.set("b", "serving");
  health.set("a", "serving");
  expect((await next).value?.status).toBe(Serving.SERVING);
  const last = watch.next();
  health.shutdown();
  expect((await last).value?.status).toBe(Serving.NOT_SERVING);
  const end = watch.next();
  abort.abort();
  await expect(end).rejects.toThrow("canceled");
  expect(health.waiting).toBe(0);
});
