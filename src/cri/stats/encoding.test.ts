import { expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  ContainerAttributesSchema,
  ContainerConfigSchema,
  ListContainerStatsResponseSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { Container } from "../store/container.ts";
import { framed } from "../store/kept-bytes.ts";
import type { ContainerMetadata } from "../store/metadata.ts";
import { NEW_STATUS, StatusFile } from "../store/status-file.ts";
import type { CgroupUse } from "./cgroup.ts";
import { attributesOf, statsMessage } from "./containers.ts";
import { encodeLayer, encodeStats, type LayerUse } from "./encoding.ts";

const config = create(ContainerConfigSchema, {
  metadata: { name: "web", attempt: 3 },
  labels: { app: "a", "": "empty" },
  annotations: { long: "x".repeat(300) },
});
const metadata = { id: "c".repeat(64), sandboxId: "s", config } as ContainerMetadata;
const container = new Container(metadata, new StatusFile("/nowhere", NEW_STATUS), undefined);

const LAYER: LayerUse = {
  timestamp: 1_764_000_000_123_456_789n,
  mountpoint: "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs",
  usedBytes: 123_456n,
  inodes: 7n,
};
const NO_LAYER: LayerUse = { timestamp: 0n, mountpoint: "", usedBytes: 0n, inodes: 0n };
const pressure = { Total: 2n ** 60n, Avg10: 1.5, Avg60: 0, Avg300: 100 };
const NOTHING: CgroupUse = {
  cpuNanoseconds: undefined,
  cpuPressure: undefined,
  memory: undefined,
  memoryPressure: undefined,
  swap: undefined,
  ioPressure: undefined,
};
const memory = {
  usageBytes: 2 ** 52,
  workingSetBytes: 127,
  availableBytes: 0,
  rssBytes: 128,
  pageFaults: 2 ** 32,
  majorPageFaults: 1,
};

const countedOf = ({ timestamp, usedBytes: size, inodes }: LayerUse) => ({ timestamp, size, inodes });

test.each<[string, LayerUse, CgroupUse | undefined, number | undefined]>([
  ["one that does not run", LAYER, undefined, undefined],
  ["nothing counted yet", NO_LAYER, NOTHING, undefined],
  ["version 1", LAYER, { ...NOTHING, cpuNanoseconds: 12_345_678_901, memory }, undefined],
  ["without use", LAYER, { ...NOTHING, cpuNanoseconds: 0 }, 0],
  [
    "version 2",
    LAYER,
    {
      cpuNanoseconds: 5,
      cpuPressure: { Some: pressure, Full: pressure },
      memory,
      memoryPressure: { Some: pressure },
      swap: { usageBytes: 5, availableBytes: 2 ** 40 },
      ioPressure: {},
    },
    999_999_999,
  ],
])("bytes are those of the message: %s", (_name, layer, use, rate) => {
  for (const now of [1_764_000_000_123_456_789n, 2n ** 53n, 2n ** 62n + 5n]) {
    const stats = [
      statsMessage({ container, mountpoint: layer.mountpoint, counted: countedOf(layer), use, now, rate }),
    ];
    const message = create(ListContainerStatsResponseSchema, { stats });
    const attributes = framed(1, ContainerAttributesSchema, attributesOf(container));
    const encoded = encodeStats({ attributes, layer: encodeLayer(layer), use, now, rate });
    expect(Buffer.from(encoded)).toEqual(Buffer.from(toBinary(ListContainerStatsResponseSchema, message)));
  }
});
