/** Loaded at the first gRPC probe. */
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "#gen/grpc/health/v1/health_pb.ts";
import type { Probe } from "../api/handlers.ts";
import type { Outcome } from "./handlers.ts";

export async function grpcProbe(host: string, { grpc }: Probe, timeoutMs: number): Promise<Outcome> {
  const address = `${host.includes(":") ? `[${host}]` : host}:${grpc?.port ?? 0}`;
  const baseUrl = `http://${address}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const client = createClient(Health, createGrpcTransport({ baseUrl, sessionManager }));
  try {
    const { status } = await client.check({ service: grpc?.service ?? "" }, { timeoutMs });
    if (status === Serving.SERVING) return { result: "success", output: "service healthy" };
    const word = Object.entries(Serving).find(([, value]) => value === status)?.[0] ?? String(status);
    return { result: "failure", output: `service unhealthy (responded with ${JSON.stringify(word)})` };
  } catch (error) {
    return { result: "failure", output: wordsOf(ConnectError.from(error), address, timeoutMs) };
  } finally {
    sessionManager.abort();
  }
}

function wordsOf({ code, rawMessage }: ConnectError, address: string, timeoutMs: number): string {
  if (code === Code.Unimplemented)
    return `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${rawMessage}`;
  if (code === Code.DeadlineExceeded || code === Code.Unavailable)
    return `timeout: failed to connect service ${JSON.stringify(address)} within ${timeoutMs / 1000}s: ${rawMessage}`;
  return `error: health rpc probe failed: ${rawMessage}`;
}
