import { afterAll, beforeAll, expect, test } from "bun:test";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { Store, StoreCreateResponseSchema } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { makeCertificates } from "../../test/support/registry-guards.ts";
import { silentLogger } from "../lib/log.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { Listener } from "./listener.ts";
import { bind } from "./registry.ts";

const folder = temporaryFolder();
const file = (name: string): string => readFileSync(join(folder, name), "utf8");
beforeAll(async () => void (await makeCertificates(folder)));
afterAll(() => removeFolder(folder));

/** Answers with the sandbox that it is sent. */
const binding = bind(Store, {
  create: ({ sandbox }) => ({ $typeName: StoreCreateResponseSchema.typeName, ...(sandbox && { sandbox }) }),
});

async function listening(strict: boolean, sniffTimeoutMs = DEFAULT_LIMITS.sniffTimeoutMs) {
  const tls = { cert: file("server.pem"), key: file("server.key"), ...(strict && { ca: file("ca.pem") }) };
  const options = { bindings: [binding], logger: silentLogger, limits: { sniffTimeoutMs } };
  const listener = new Listener({ host: "127.0.0.1", port: 0, tls }, options);
  await listener.start();
  return {
    port: listener.port,
    close: () => listener.close(1000),
    [Symbol.asyncDispose]: () => listener.close(1000),
  };
}

const shown = () => ({ cert: file("client.pem"), key: file("client.key") });

test.each(["gRPC", "Connect by HTTP/2", "Connect by HTTP/1.1"])("%s, small and large", async (protocol) => {
  await using server = await listening(true);
  const nodeOptions = { ca: file("ca.pem"), ...shown() };
  const baseUrl = `https://127.0.0.1:${server.port}`;
  const httpVersion = protocol.endsWith("1.1") ? ("1.1" as const) : ("2" as const);
  const transport =
    protocol === "gRPC"
      ? createGrpcTransport({ baseUrl, nodeOptions, idleConnectionTimeoutMs: 1 })
      : createConnectTransport({ baseUrl, httpVersion, nodeOptions, idleConnectionTimeoutMs: 1 });
  const client = createClient(Store, transport);
  for (const length of [1, 5 << 20]) {
    const sandboxId = "x".repeat(length);
    expect((await client.create({ sandbox: { sandboxId } })).sandbox?.sandboxId.length).toBe(length);
  }
});

test("without a certificate of its authority nobody is served", async () => {
  const call = async (port: number, own: object) => {
    const nodeOptions = { ca: file("ca.pem"), ...own };
    const baseUrl = `https://127.0.0.1:${port}`;
    const client = createClient(
      Store,
      createGrpcTransport({ baseUrl, nodeOptions, idleConnectionTimeoutMs: 1 }),
    );
    return await client.create({ sandbox: { sandboxId: "a" } });
  };
  await using strict = await listening(true);
  const own = { cert: file("server.pem"), key: file("server.key") };
  await expect(call(strict.port, {})).rejects.toThrow();
  expect((await call(strict.port, shown())).sandbox?.sandboxId).toBe("a");
  await using lax = await listening(false);
  expect((await call(lax.port, {})).sandbox?.sandboxId).toBe("a");
  expect((await call(lax.port, own)).sandbox?.sandboxId).toBe("a");
});

test("a connection that never shakes hands is closed after a while, and with the listener", async () => {
  await using impatient = await listening(false, 50);
  const silent = connect(impatient.port, "127.0.0.1").resume();
  silent.on("error", () => undefined);
  await once(silent, "close");
  const patient = await listening(false);
  const waiting = connect(patient.port, "127.0.0.1").resume();
  waiting.on("error", () => undefined);
  await once(waiting, "connect");
  const closed = once(waiting, "close");
  await patient.close();
  await closed;
});

test("a key pair that is none is said so", () => {
  const tls = { cert: "no PEM", key: file("server.key") };
  const make = () =>
    new Listener({ host: "127.0.0.1", port: 0, tls }, { bindings: [], logger: silentLogger });
  expect(make).toThrow(/^TLS certificate and key: /);
});
