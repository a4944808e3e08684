import { fieldSize, varintSize, WireWriter } from "../lib/wire.ts";
import type { ContainerRecord, RecordEntry } from "../model/container-record.ts";
import type { GoTime } from "../model/go-time.ts";

/*
 * A container's record straight to protobuf bytes: spec, options and extensions are Any bytes already and are copied,
 * not decoded. Field numbers are those of containerd.services.containers.v1.Container.
 */

const FIELD = {
  id: 1,
  labels: 2,
  image: 3,
  runtime: 4,
  spec: 5,
  snapshotter: 6,
  snapshotKey: 7,
  createdAt: 8,
  updatedAt: 9,
  extensions: 10,
  sandbox: 11,
} as const;

/** In GetContainerResponse, ListContainersResponse and ListContainerMessage alike, the container is field 1. */
const CONTAINER_IN_RESPONSE = 1;

const writer = new WireWriter();

/** A container's bytes and the fields that filters ask for most. */
export interface EncodedContainer {
  readonly image: Uint8Array;
  readonly runtimeName: Uint8Array;
  /** How many of the bytes are labels. */
  readonly labelsBytes: number;
  /** The container as field 1 of a response. */
  readonly framed: Uint8Array;
}

/** Bytes of a container, in memory of their own. */
export function encodeRecord(record: ContainerRecord): EncodedContainer {
  const { image, runtimeName, spec } = record;
  writer.begin();
  writer.bytes(FIELD.id, Buffer.from(record.id));
  const labelsBytes = writeMap(FIELD.labels, record.labels);
  writeText(FIELD.image, image);
  writeRuntime(runtimeName, record.runtimeOptions);
  if (spec !== undefined) writer.bytes(FIELD.spec, spec);
  writeText(FIELD.snapshotter, record.snapshotter);
  writeText(FIELD.snapshotKey, record.snapshotKey);
  writeTime(FIELD.createdAt, record.createdAt);
  writeTime(FIELD.updatedAt, record.updatedAt);
  writeMap(FIELD.extensions, record.extensions);
  writeText(FIELD.sandbox, record.sandbox);
  return { image, runtimeName, labelsBytes, framed: writer.takeFramed(CONTAINER_IN_RESPONSE) };
}

/** Proto3 leaves empty texts out. */
function writeText(field: number, value: Uint8Array): void {
  if (value.length > 0) writer.bytes(field, value);
}

/** A map's entries. Returns their bytes. */
function writeMap(field: number, entries: readonly RecordEntry[]): number {
  let writtenBytes = 0;
  for (const [key, value] of entries) {
    const sizeBytes = fieldSize(key.length) + fieldSize(value.length);
    writer.header(field, sizeBytes);
    writer.bytes(1, key);
    writer.bytes(2, value);
    writtenBytes += sizeBytes;
  }
  return writtenBytes;
}

function writeRuntime(name: Uint8Array, options: Uint8Array | undefined): void {
  const nameSize = name.length === 0 ? 0 : fieldSize(name.length);
  writer.header(FIELD.runtime, nameSize + (options === undefined ? 0 : fieldSize(options.length)));
  writeText(1, name);
  if (options !== undefined) writer.bytes(2, options);
}

function writeTime(field: number, { seconds, nanos }: GoTime): void {
  const size = (part: number): number => (part === 0 ? 0 : 1 + varintSize(part));
  writer.header(field, size(seconds) + size(nanos));
  writePart(1, seconds);
  writePart(2, nanos);
}

function writePart(field: number, part: number): void {
  if (part === 0) return;
  writer.tag(field, 0);
  writer.varint(part);
}
