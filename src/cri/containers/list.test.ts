import { expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  ContainerConfigSchema,
  type ContainerFilter,
  ContainerFilterSchema,
  ContainerState,
  ListContainersResponseSchema,
  ListPodSandboxResponseSchema,
  PodSandboxConfigSchema,
  PodSandboxState,
} from "#gen/runtime/v1/api_pb.ts";
import { joined } from "../../lib/wire.ts";
import type { Cri } from "../cri.ts";
import { listPodSandbox, listPodSandboxEncoded } from "../sandboxes/list.ts";
import { Container } from "../store/container.ts";
import { IdTable } from "../store/id-table.ts";
import type { ContainerMetadata, SandboxMetadata } from "../store/metadata.ts";
import { Sandbox } from "../store/sandbox.ts";
import { NEW_STATUS, StatusFile } from "../store/status-file.ts";
import { listContainers, listContainersEncoded } from "./list.ts";

function made(id: string): Container {
  const config = create(ContainerConfigSchema, { metadata: { name: id, attempt: 1 }, labels: { own: id } });
  const metadata = { id, sandboxId: "pod", imageRef: "sha256:1", config } as ContainerMetadata;
  return new Container(metadata, new StatusFile("/nowhere", { ...NEW_STATUS, createdAt: 5n }), undefined);
}

const config = create(PodSandboxConfigSchema, { metadata: { name: "pod", uid: "1" }, labels: { app: "a" } });
const pod = new Sandbox({ id: "pod", config, runtimeHandler: "runc" } as SandboxMetadata, "podsandbox", {
  state: "ready",
  pid: 1,
  createdAt: 7n,
  exitedAt: 0n,
  exitStatus: 0,
});
const cri = { containers: new IdTable<Container>(), sandboxes: new IdTable<Sandbox>() } as unknown as Cri;
const [one, two] = [made("one"), made("two")];
cri.containers.add(one);
cri.containers.add(two);
cri.sandboxes.add(pod);

const containers = (filter?: ContainerFilter) =>
  fromBinary(ListContainersResponseSchema, joined(listContainersEncoded(cri, filter))).containers;
const pods = () => fromBinary(ListPodSandboxResponseSchema, joined(listPodSandboxEncoded(cri, undefined)));

test("bytes are those of the messages, now and after each change", () => {
  const same = (): void => {
    const message = create(ListContainersResponseSchema, { containers: listContainers(cri, undefined) });
    const bytes = toBinary(ListContainersResponseSchema, message);
    expect(Buffer.from(joined(listContainersEncoded(cri, undefined)))).toEqual(Buffer.from(bytes));
  };
  same();
  one.status.set({ startedAt: 9n });
  same();
  expect(containers().map(({ state }) => state)).toEqual([
    ContainerState.CONTAINER_RUNNING,
    ContainerState.CONTAINER_CREATED,
  ]);
  one.status.set({ finishedAt: 10n });
  same();
  const filter = create(ContainerFilterSchema, { state: { state: ContainerState.CONTAINER_EXITED } });
  expect(containers(filter).map(({ id }) => id)).toEqual(["one"]);
});

test("pods likewise; metadata too may change while one is made", () => {
  const same = (): void => {
    const message = create(ListPodSandboxResponseSchema, { items: listPodSandbox(cri, undefined) });
    expect(pods()).toEqual(message);
  };
  same();
  pod.update({ state: "not ready" });
  same();
  expect(pods().items[0]?.state).toBe(PodSandboxState.SANDBOX_NOTREADY);
  pod.metadata = { ...pod.metadata, runtimeHandler: "other" };
  same();
  expect(pods().items[0]?.runtimeHandler).toBe("other");
});
