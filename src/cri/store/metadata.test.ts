import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { ContainerConfigSchema } from "#gen/runtime/v1/api_pb.ts";
import { type ContainerMetadata, packContainerMetadata, unpackContainerMetadata } from "./metadata.ts";

const METADATA: ContainerMetadata = {
  ...{ id: "i", name: "n", sandboxId: "s", imageRef: "r", imageDigest: "d", imageName: "m" },
  ...{ logPath: "/l", stopSignal: "SIGINT", processLabel: "" },
  config: create(ContainerConfigSchema, { envs: [{ key: "A", value: Buffer.from("a=b\n") }] }),
};

test("metadata come back as they were", () => {
  expect(unpackContainerMetadata(packContainerMetadata(METADATA))).toEqual(METADATA);
});

/** containerd 2.1's, whose CRI has text where the next one has bytes. */
const OLDER = {
  Version: "v1",
  Metadata: {
    ...{ ID: "i", Name: "n", SandboxID: "s", ImageRef: "r", LogPath: "/l", StopSignal: "SIGINT" },
    Config: { envs: [{ key: "A", value: "a=b\n" }, { key: "EMPTY" }] },
  },
};

test("variables of a container that an older daemon made are text", () => {
  const { typeUrl } = packContainerMetadata(METADATA);
  const value = Buffer.from(JSON.stringify(OLDER));
  const { config } = unpackContainerMetadata(create(AnySchema, { typeUrl, value }));
  expect(config.envs.map(({ key, value }) => [key, Buffer.from(value).toString()])).toEqual([
    ["A", "a=b\n"],
    ["EMPTY", ""],
  ]);
});
