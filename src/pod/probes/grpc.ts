/** Loaded at the first gRPC probe. */
import { connect } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "#gen/grpc/health/v1/health_pb.ts";
import { grpcTransport } from "../../transport/grpc/client.ts";
import type { Probe } from "../api/handlers.ts";
import type { Outcome } from "./outcome.ts";

/** A health check answers a number. */
const MAX_MESSAGE_BYTES = 64 << 10;

export async function grpcProbe(host: string, { grpc }: Probe, timeoutMs: number): Promise<Outcome> {
  const port = grpc?.port ?? 0;
  const authority = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const dial = () => connect({ host, port });
  const transport = grpcTransport({ connect: dial, authority, maxMessageBytes: MAX_MESSAGE_BYTES });
  const client = createClient(Health, transport);
  try {
    const { status } = await client.check({ service: grpc?.service ?? "" }, { timeoutMs });
    if (status === Serving.SERVING) return { result: "success", output: "service healthy" };
    const word = Object.entries(Serving).find(([, value]) => value === status)?.[0] ?? String(status);
    return { result: "failure", output: `service unhealthy (responded with ${JSON.stringify(word)})` };
  } catch (error) {
    return { result: "failure", output: wordsOf(ConnectError.from(error), authority, timeoutMs) };
  } finally {
    transport.close();
  }
}

function wordsOf({ code, rawMessage }: ConnectError, address: string, timeoutMs: number): string {
  if (code === Code.Unimplemented)
    return `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${rawMessage}`;
  if (code === Code.DeadlineExceeded || code === Code.Unavailable)
    return `timeout: failed to connect service ${JSON.stringify(address)} within ${timeoutMs / 1000}s: ${rawMessage}`;
  return `error: health rpc probe failed: ${rawMessage}`;
}
