/** ContainerStats straight to bytes: for hundreds of containers, messages that live for one answer cost more than the kernel's files. */
import { create, toBinary } from "@bufbuild/protobuf";
import { PsiStatsSchema } from "#gen/runtime/v1/api_pb.ts";
import { fieldSize, varint64Size, varintSize, WireWriter } from "../../lib/wire.ts";
import type { CgroupUse, Pressures } from "./cgroup.ts";

/** Of ListContainerStatsResponse and of StreamContainerStatsResponse. */
const STATS_FIELD = 1;
const FIELD = { cpu: 2, memory: 3, writableLayer: 4, swap: 5, io: 6 } as const;
const EMPTY = new Uint8Array(0);
const writer = new WireWriter();

/** What one container's stats are made of. */
export interface StatsParts {
  /** As field 1 of ContainerStats. */
  readonly attributes: Uint8Array;
  /** As {@link encodeLayer} makes it. */
  readonly layer: Uint8Array;
  /** Undefined of one that does not run. */
  readonly use: CgroupUse | undefined;
  /** Nanoseconds since 1970. */
  readonly now: bigint;
  /** Billionths of a core, if it is known yet. */
  readonly rate: number | undefined;
}

export interface LayerUse {
  /** Nanoseconds since 1970; 0 while it is not counted. */
  readonly timestamp: bigint;
  readonly mountpoint: string;
  readonly usedBytes: bigint;
  readonly inodes: bigint;
}

/** As field 1 of an answer, in memory of its own. */
export function encodeStats({ attributes, layer, use, now, rate }: StatsParts): Uint8Array {
  writer.begin();
  writer.raw(attributes);
  const { cpuNanoseconds, memory, swap, ioPressure } = use ?? {};
  if (cpuNanoseconds !== undefined) writeUsage(FIELD.cpu, now, [cpuNanoseconds, rate], use?.cpuPressure);
  if (memory !== undefined) {
    const { workingSetBytes, availableBytes, usageBytes, rssBytes, pageFaults, majorPageFaults } = memory;
    const values = [workingSetBytes, availableBytes, usageBytes, rssBytes, pageFaults, majorPageFaults];
    writeUsage(FIELD.memory, now, values, use?.memoryPressure);
  }
  writer.raw(layer);
  if (swap !== undefined) writeUsage(FIELD.swap, now, [swap.availableBytes, swap.usageBytes], undefined);
  if (ioPressure !== undefined) writeUsage(FIELD.io, now, [], ioPressure);
  return writer.takeFramed(STATS_FIELD);
}

/** A message of a timestamp, then a UInt64Value in each field from 2 on, and pressures in the one behind them. */
function writeUsage(
  field: number,
  timestamp: bigint,
  values: readonly (number | undefined)[],
  pressures: Pressures | undefined,
): void {
  const psi =
    pressures === undefined ? EMPTY : toBinary(PsiStatsSchema, create(PsiStatsSchema, { ...pressures }));
  let size = timestampSize(timestamp) + (pressures === undefined ? 0 : fieldSize(psi.length));
  for (const value of values) if (value !== undefined) size += fieldSize(valueSize(value));
  writer.header(field, size);
  writeTimestamp(timestamp);
  for (let at = 0; at < values.length; at++) {
    const value = values[at];
    if (value !== undefined) writeValue(2 + at, value);
  }
  if (pressures !== undefined) writer.bytes(2 + values.length, psi);
}

/** As field 4 of ContainerStats, in memory of its own. */
export function encodeLayer({ timestamp, mountpoint, usedBytes, inodes }: LayerUse): Uint8Array {
  const path = Buffer.from(mountpoint);
  writer.begin();
  writeTimestamp(timestamp);
  writer.header(2, path.length === 0 ? 0 : fieldSize(path.length));
  if (path.length > 0) writer.bytes(1, path);
  writeValue(3, Number(usedBytes));
  writeValue(4, Number(inodes));
  return writer.takeFramed(FIELD.writableLayer);
}

function timestampSize(timestamp: bigint): number {
  return timestamp === 0n ? 0 : 1 + varint64Size(timestamp);
}

function writeTimestamp(timestamp: bigint): void {
  if (timestamp === 0n) return;
  writer.tag(1, 0);
  writer.varint64(timestamp);
}

/** Of a UInt64Value: proto3 leaves 0 out. */
function valueSize(value: number): number {
  return value === 0 ? 0 : 1 + varintSize(value);
}

function writeValue(field: number, value: number): void {
  writer.header(field, valueSize(value));
  if (value === 0) return;
  writer.tag(1, 0);
  writer.varint(value);
}
