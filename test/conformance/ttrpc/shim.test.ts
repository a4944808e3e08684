/** Real shims of both Debian releases: they answer our client, and bring their events to our server. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { DescMessage } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { TaskCreateSchema, TaskDeleteSchema } from "#gen/containerd/events/task_pb.ts";
import { Task as TaskV2 } from "#gen/containerd/task/v2/shim_pb.ts";
import { Task as TaskV3 } from "#gen/containerd/task/v3/shim_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { Exchange } from "../../../src/events/exchange.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { ttrpcEventsService } from "../../../src/services/ttrpc-events.ts";
import { shimSocketPath } from "../../../src/transport/ttrpc/address.ts";
import { ttrpcTransport } from "../../../src/transport/ttrpc/client.ts";
import { TtrpcServer } from "../../../src/transport/ttrpc/server.ts";
import type { Version } from "../../support/daemons.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";
import { startShim } from "../../support/shim.ts";

/** Release and the version of its task API that its shim serves. */
const SHIMS: readonly (readonly [Version, typeof TaskV2 | typeof TaskV3])[] = [
  ["2.1", TaskV3],
  ["1.6", TaskV2],
];

async function statusOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof ConnectError
    ? `${Code[error.code]}: ${error.rawMessage}`
    : `no status: ${String(error)}`;
}

/** A shim may be gone before its answer has left, which containerd takes for one too: `core/runtime/v2/shim.go`. */
async function shutdown(call: Promise<unknown>): Promise<void> {
  const status = await statusOf(call);
  if (status !== "Unavailable: ttrpc: closed") expect(status).toBe("no status: undefined");
}

for (const [version, Task] of SHIMS) {
  test(`the shim of ${version} answers Connect, State, Wait and Shutdown, then closes`, async () => {
    await using shim = await startShim(version);
    const transport = ttrpcTransport({ connect: shimSocketPath(shim.address) });
    // Both versions have the same methods and messages.
    const task = createClient(Task as typeof TaskV3, transport);
    const options = { headers: { "containerd-namespace-ttrpc": shim.namespace }, timeoutMs: 30_000 };
    expect((await task.connect({ id: shim.id }, options)).shimPid).toBe(shim.pid);
    expect(await statusOf(task.state({ id: shim.id }, options))).toBe(
      "NotFound: container not created: not found",
    );
    const many = Array.from({ length: 200 }, () => task.connect({ id: shim.id }, options));
    expect((await Promise.all(many)).every(({ shimPid }) => shimPid === shim.pid)).toBe(true);
    const large = task.connect({ id: "x".repeat(4_000_000) }, options);
    expect((await large).shimPid).toBe(shim.pid);
    await shutdown(task.shutdown({ id: shim.id }, options));
    expect(await transport.closed).toBeUndefined();
    expect(await statusOf(task.connect({ id: shim.id }, options))).toBe("Unavailable: ttrpc: closed");
  });

  test(`the shim of ${version} brings its events to our server`, async () => {
    const folder = temporaryFolder();
    const address = join(folder, "events.ttrpc");
    const exchange = new Exchange();
    const bindings = [ttrpcEventsService({ exchange })];
    const server = new TtrpcServer({ path: address }, { bindings, logger: silentLogger });
    await server.start();
    try {
      await using shim = await startShim(version, { ttrpcAddress: address });
      const events = exchange.subscribe([]);
      const transport = ttrpcTransport({ connect: shimSocketPath(shim.address) });
      const task = createClient(Task as typeof TaskV3, transport);
      const options = { headers: { "containerd-namespace-ttrpc": shim.namespace }, timeoutMs: 60_000 };
      const { id, bundle } = shim;
      const { pid } = await task.create({ id, bundle }, options);
      const created = await next(events, "/tasks/create", TaskCreateSchema);
      expect(created).toMatchObject({ namespace: shim.namespace, event: { containerId: id, bundle, pid } });
      await task.delete({ id }, options);
      const deleted = await next(events, "/tasks/delete", TaskDeleteSchema);
      expect(deleted).toMatchObject({ namespace: shim.namespace, event: { containerId: id, pid } });
      await shutdown(task.shutdown({ id }, options));
      await transport.closed;
      await events.return?.();
    } finally {
      await server.close(0);
      removeFolder(folder);
    }
  });
}

async function next(events: AsyncIterator<Envelope>, topic: string, schema: DescMessage) {
  for (;;) {
    const { value } = await events.next();
    if (value?.topic === topic && value.event !== undefined) {
      return { namespace: value.namespace, event: anyUnpack(value.event, schema) };
    }
  }
}
