/** The client over a socket of bunkerd's own transport; `test/integration/client.test.ts` has whole daemons. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { ContainerDeleteSchema } from "#gen/containerd/events/container_pb.ts";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { failureOf } from "../../test/support/container-store-suite.ts";
import { Exchange } from "../events/exchange.ts";
import { silentLogger } from "../lib/log.ts";
import { BunkerdError, type ErrorCode } from "../model/errors.ts";
import { eventsService } from "../services/events.ts";
import { Listener } from "../transport/listener.ts";
import { bind, type ServiceBinding } from "../transport/registry.ts";
import { Client } from "./client.ts";

let folder: string;
let path: string;
let client: Client;
const listeners: Listener[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-client-"));
  path = join(folder, "d.sock");
  client = new Client(path);
});
afterEach(async () => {
  client.close();
  await Promise.all(listeners.splice(0).map((listener) => listener.close(0)));
  rmSync(folder, { recursive: true });
});

async function serve(...bindings: ServiceBinding[]): Promise<Listener> {
  const listener = new Listener({ path }, { bindings, logger: silentLogger });
  await listener.start();
  listeners.push(listener);
  return listener;
}

const scope = { namespace: "prod" };
const version = bind(Version, { version: () => ({ version: "v1" }) }) as ServiceBinding;

/** Get behaves as the test says; the rest is Unimplemented. */
const getIs = (get: (id: string, context: HandlerContext) => Promise<never>): ServiceBinding =>
  bind(Containers, { get: ({ id }, context) => get(id, context) }) as ServiceBinding;

describe("errors", () => {
  const codes: ErrorCode[] = [
    "NotFound",
    "AlreadyExists",
    "InvalidArgument",
    "FailedPrecondition",
    "Unavailable",
    "Aborted",
    "OutOfRange",
    "DataLoss",
    "DeadlineExceeded",
    "Canceled",
    "PermissionDenied",
    "Unauthenticated",
    "ResourceExhausted",
    "Unimplemented",
    "Internal",
  ];

  test("every class comes back as itself, word for word", async () => {
    const message = 'container "wéb\n%41": not found';
    await serve(
      getIs(async (id) => {
        throw new BunkerdError(id as ErrorCode, message);
      }),
    );
    for (const code of codes) {
      const error = await failureOf(client.containers().get(scope, code));
      expect([error.code, error.message]).toEqual([code, message]);
    }
  });

  test("a defect of the server comes as Unknown", async () => {
    await serve(
      getIs(async () => {
        throw new TypeError("x is not a function");
      }),
    );
    const error = await failureOf(client.containers().get(scope, "web"));
    expect([error.code, error.message]).toEqual(["Unknown", "x is not a function"]);
  });

  test("where nobody listens it is Unavailable, naming the address", async () => {
    const error = await failureOf(client.containers().list(scope));
    expect(error.code).toBe("Unavailable");
    expect(error.message).toStartWith(`connection to ${path}: `);
    const connecting = Client.connect(`unix://${path}`);
    expect((await failureOf(connecting)).message).toStartWith(`connection to unix://${path}: `);
  });

  test("a server that goes away in the middle of a call and of a stream is Unavailable; the next call finds a new one", async () => {
    const { promise: called, resolve } = Promise.withResolvers<void>();
    const exchange = new Exchange();
    const hangs = getIs(() => {
      resolve();
      return new Promise<never>(() => undefined);
    });
    const first = await serve(hangs, eventsService({ exchange }) as ServiceBinding);
    const get = failureOf(client.containers().get(scope, "web"));
    const events = failureOf(client.events().subscribe().next());
    await called;
    while (exchange.subscribers === 0) await Bun.sleep(1);
    await first.close(0);
    expect((await get).code).toBe("Unavailable");
    expect((await events).code).toBe("Unavailable");
    await serve(version);
    expect((await client.version()).version).toBe("v1");
  });

  test("a server that speaks something else is Unavailable", async () => {
    const server = await new Promise<Server>((resolve) => {
      const listening = createServer((socket) => {
        socket.on("error", () => undefined);
        socket.end("SSH-2.0-OpenSSH_9.2\r\n");
      }).listen(path, () => resolve(listening));
    });
    try {
      expect((await failureOf(client.version())).code).toBe("Unavailable");
    } finally {
      server.close();
    }
  });
});

describe("a scope", () => {
  test("sends namespace and lease, and no lease if there is none", async () => {
    const seen: (string | null)[][] = [];
    await serve(
      getIs(async (_, { requestHeader }) => {
        seen.push([requestHeader.get("containerd-namespace"), requestHeader.get("containerd-lease")]);
        throw new BunkerdError("NotFound", "no");
      }),
    );
    await failureOf(client.containers().get({ ...scope, lease: "l-1" }, "web"));
    await failureOf(client.containers().get(scope, "web"));
    expect(seen).toEqual([
      ["prod", "l-1"],
      ["prod", null],
    ]);
  });

  test("whose signal aborts ends the call on both sides", async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    const { promise: called, resolve: wasCalled } = Promise.withResolvers<void>();
    await serve(
      getIs((_, { signal }) => {
        signal.addEventListener("abort", () => resolve());
        wasCalled();
        return new Promise<never>(() => undefined);
      }),
    );
    const controller = new AbortController();
    const get = failureOf(client.containers().get({ ...scope, signal: controller.signal }, "web"));
    await called;
    controller.abort();
    expect((await get).code).toBe("Canceled");
    await aborted;
  });
});

describe("events", () => {
  const event = create(ContainerDeleteSchema, { id: "web" });

  test("the server hears when a reader leaves the loop", async () => {
    const exchange = new Exchange();
    await serve(eventsService({ exchange }) as ServiceBinding);
    const events = client.events().subscribe(['topic=="/a"']);
    while (exchange.subscribers === 0) await Bun.sleep(1);
    exchange.publish("n", "/a", ContainerDeleteSchema, event);
    for await (const envelope of events) {
      expect(envelope.topic).toBe("/a");
      break;
    }
    while (exchange.subscribers > 0) await Bun.sleep(1);
    expect((await events.next()).done).toBe(true);
  });

  test("headers of an idle subscription come at once", async () => {
    const exchange = new Exchange();
    await serve(eventsService({ exchange }) as ServiceBinding);
    const end = new AbortController();
    const { promise: headers, resolve } = Promise.withResolvers<Headers>();
    const options = { signal: end.signal, onHeader: resolve };
    const next = client.service(Events).subscribe({}, options)[Symbol.asyncIterator]().next();
    expect((await headers).get("content-type")).toStartWith("application/grpc");
    expect(exchange.subscribers).toBe(1);
    end.abort();
    await next.catch(() => undefined);
  });

  test("a reader that does not read is cut, hears how much waited, and others go on", async () => {
    const exchange = new Exchange({ maxQueuedEvents: 100 });
    await serve(eventsService({ exchange }) as ServiceBinding);
    const slow = client.events().subscribe();
    const other = new Client(path);
    const quick = other.events().subscribe();
    while (exchange.subscribers < 2) await Bun.sleep(1);
    const big = create(ContainerDeleteSchema, { id: "x".repeat(100_000) });
    let published = 0;
    while (exchange.subscribers === 2) {
      exchange.publish("n", "/a", ContainerDeleteSchema, big);
      published++;
      expect((await quick.next()).done).not.toBe(true);
    }
    expect(published).toBeGreaterThan(100);
    let received = 0;
    const reading = (async () => {
      for await (const _ of slow) received++;
    })();
    const error = await failureOf(reading);
    expect(error.code).toBe("ResourceExhausted");
    expect(error.message).toMatch(/^subscription error: subscriber is too slow: cut with 100 events/);
    expect(received).toBeLessThan(published);
    other.close();
  });
});
