import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, createClient } from "@connectrpc/connect";
import {
  ContainerEventResponseSchema,
  ListContainersResponseSchema,
  ListPodSandboxResponseSchema,
  type PodSandboxConfig,
  PodSandboxConfigSchema,
  RuntimeService,
} from "#gen/runtime/v1/api_pb.ts";
import { fail } from "../model/errors.ts";
import { PartedMessage } from "./grpc/parted-message.ts";
import { localTransport } from "./local.ts";
import { bind } from "./registry.ts";

describe("a program's calls on its own services", () => {
  const never = Promise.withResolvers<never>();
  let given: PodSandboxConfig | undefined;
  let seen: AbortSignal | undefined;
  const binding = bind(
    RuntimeService,
    {
      runPodSandbox({ config }) {
        given = config;
        return { podSandboxId: `made ${config?.metadata?.name}` };
      },
      startContainer({ containerId }) {
        throw fail("NotFound", `container ${containerId}`);
      },
      async stopContainer(_request, { signal }) {
        seen = signal;
        return await never.promise;
      },
      async *getContainerEvents(_request, { signal }) {
        for (let n = 1; !signal.aborted; n++) {
          yield create(ContainerEventResponseSchema, { containerId: String(n) });
          seen = signal;
        }
      },
    },
    {
      listContainers: () =>
        toBinary(
          ListContainersResponseSchema,
          create(ListContainersResponseSchema, { containers: [{ id: "x" }] }),
        ),
      listPodSandbox: () =>
        new PartedMessage(
          ["a", "b"].map((id) =>
            toBinary(ListPodSandboxResponseSchema, create(ListPodSandboxResponseSchema, { items: [{ id }] })),
          ),
        ),
    },
  );
  const client = createClient(RuntimeService, localTransport([binding]));

  test("are answered, by encoded answers too; what is given and got is a copy", async () => {
    const config = create(PodSandboxConfigSchema, { metadata: { name: "web" }, labels: { a: "b" } });
    expect((await client.runPodSandbox({ config })).podSandboxId).toBe("made web");
    expect(given).toEqual(config);
    expect(given).not.toBe(config);
    expect(given?.labels).not.toBe(config.labels);
    expect((await client.listContainers({})).containers.map(({ id }) => id)).toEqual(["x"]);
    expect((await client.listPodSandbox({})).items.map(({ id }) => id)).toEqual(["a", "b"]);
  });

  test("fail with the service's own error, or Unimplemented", async () => {
    await expect(client.startContainer({ containerId: "x" })).rejects.toMatchObject({ code: "NotFound" });
    await expect(client.removeContainer({})).rejects.toMatchObject({ code: Code.Unimplemented });
    const other = createClient(RuntimeService, localTransport([]));
    await expect(other.version({})).rejects.toMatchObject({ code: Code.Unimplemented });
  });

  test("end with the caller's signal, whatever the service does", async () => {
    const caller = new AbortController();
    const stopping = client.stopContainer({}, { signal: caller.signal });
    caller.abort(new Error("enough"));
    await expect(stopping).rejects.toMatchObject({ code: Code.Canceled });
    expect(seen?.reason).toEqual(new Error("enough"));
    await expect(client.stopContainer({}, { signal: caller.signal })).rejects.toMatchObject({
      code: Code.Canceled,
    });
  });

  test("stream until the caller has enough", async () => {
    const caller = new AbortController();
    const got: string[] = [];
    for await (const { containerId } of client.getContainerEvents({}, { signal: caller.signal })) {
      got.push(containerId);
      if (got.length === 3) caller.abort();
    }
    expect(got).toEqual(["1", "2", "3"]);
    expect(seen?.aborted).toBe(true);
  });
});
