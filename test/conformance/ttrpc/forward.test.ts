/** Events.Forward at `<address>.ttrpc`, of bunkerd and of both containerds, seen by `ctr events` and refused in the same words. */
import { expect, test } from "bun:test";
import { statSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { TaskOOMSchema } from "#gen/containerd/events/task_pb.ts";
import { Events } from "#gen/containerd/services/events/ttrpc/v1/events_pb.ts";
import { Task } from "#gen/containerd/task/v3/shim_pb.ts";
import { ttrpcTransport } from "../../../src/transport/ttrpc/client.ts";
import { containerdProgram, daemonKinds, startDaemon } from "../../support/daemons.ts";
import { linesOf, start } from "../../support/processes.ts";

async function statusOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof ConnectError
    ? `${Code[error.code]}: ${error.rawMessage}`
    : `no status: ${String(error)}`;
}

for (const kind of daemonKinds("bunkerd", "containerd-2.1", "containerd-1.6")) {
  test(`${kind} takes what shims forward`, async () => {
    await using daemon = await startDaemon(kind);
    const path = `${daemon.socket}.ttrpc`;
    expect(statSync(path).mode & 0o777).toBe(0o660);
    const transport = ttrpcTransport({ connect: path });
    const events = createClient(Events, transport);
    const envelope = {
      namespace: "there",
      topic: "/tasks/oom",
      timestamp: { seconds: 1_700_000_000n, nanos: 5 },
      event: create(AnySchema, {
        typeUrl: TaskOOMSchema.typeName,
        value: toBinary(TaskOOMSchema, create(TaskOOMSchema, { containerId: "c1" })),
      }),
    };
    const child = start(
      [await containerdProgram("2.1", "ctr"), "--address", daemon.socket, "--namespace", "there", "events"],
      { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    );
    const lines = linesOf(child.stdout);
    // ctr does not tell when it listens: events are forwarded until it shows one.
    let seen: string | undefined;
    const first = lines.next().then(({ value }) => {
      seen = value ?? "nothing";
    });
    while (seen === undefined) {
      await events.forward({ envelope });
      await Promise.race([first, Bun.sleep(50)]);
    }
    expect(seen).toStartWith("2023-11-14 22:13:20.000000005 +0000 UTC there /tasks/oom");
    child.kill();
    await child.exited;

    expect(await statusOf(events.forward({ envelope: { ...envelope, topic: "tasks" } }))).toBe(
      "InvalidArgument: envelope topic \"tasks\": must start with '/': invalid argument",
    );
    expect(await statusOf(events.forward({ envelope: { ...envelope, namespace: "" } }))).toBe(
      "InvalidArgument: event envelope has invalid namespace: identifier must not be empty: invalid argument",
    );
    expect(await statusOf(createClient(Task, transport).state({}))).toBe(
      "Unimplemented: service containerd.task.v3.Task",
    );
    transport.close();
    expect(await transport.closed).toBeUndefined();
  });
}
