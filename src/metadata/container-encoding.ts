import type { Bucket } from "../bolt/bucket.ts";
import { fieldSize, isWireMessage, varintSize, WireWriter } from "../lib/wire.ts";
import { fail } from "../model/errors.ts";
import { decodeGoTime } from "../model/go-time.ts";
import { EMPTY, KEY } from "./schema.ts";

/*
 * A container's bucket straight to protobuf bytes: spec, options and extensions are Any bytes already and are copied,
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

/** Bytes of the container in `bucket`, in memory of their own; the other fields are views. @throws DataLoss on malformed fields */
export function encodeContainer(id: string, bucket: Bucket): EncodedContainer {
  const image = bucket.get(KEY.image) ?? EMPTY;
  const runtime = bucket.bucket(KEY.runtime);
  const runtimeName = runtime?.get(KEY.name) ?? EMPTY;
  writer.begin();
  writer.bytes(FIELD.id, Buffer.from(id));
  const labelsBytes = writeMap(FIELD.labels, bucket.bucket(KEY.labels));
  writeText(FIELD.image, image);
  writeRuntime(runtimeName, runtime?.get(KEY.options));
  const spec = bucket.get(KEY.spec);
  if (spec !== undefined) writer.bytes(FIELD.spec, checked(spec, "spec"));
  writeText(FIELD.snapshotter, bucket.get(KEY.snapshotter));
  writeText(FIELD.snapshotKey, bucket.get(KEY.snapshotKey));
  writeTime(FIELD.createdAt, bucket.get(KEY.createdAt));
  writeTime(FIELD.updatedAt, bucket.get(KEY.updatedAt));
  writeMap(FIELD.extensions, bucket.bucket(KEY.extensions), "extension");
  writeText(FIELD.sandbox, bucket.get(KEY.sandboxId));
  return { image, runtimeName, labelsBytes, framed: writer.takeFramed(CONTAINER_IN_RESPONSE) };
}

/** Proto3 leaves empty texts out. */
function writeText(field: number, value: Uint8Array | undefined): void {
  if (value !== undefined && value.length > 0) writer.bytes(field, value);
}

/** A map's entries; the values are Any messages where `anyNamed` says what they are. Returns the entries' bytes. */
function writeMap(field: number, bucket: Bucket | undefined, anyNamed?: string): number {
  let writtenBytes = 0;
  bucket?.forEach((key, value = EMPTY) => {
    if (anyNamed !== undefined) checked(value, anyNamed);
    const sizeBytes = fieldSize(key.length) + fieldSize(value.length);
    writer.header(field, sizeBytes);
    writer.bytes(1, key);
    writer.bytes(2, value);
    writtenBytes += sizeBytes;
  });
  return writtenBytes;
}

function writeRuntime(name: Uint8Array, options: Uint8Array | undefined): void {
  const nameSize = name.length === 0 ? 0 : fieldSize(name.length);
  writer.header(FIELD.runtime, nameSize + (options === undefined ? 0 : fieldSize(options.length)));
  writeText(1, name);
  if (options !== undefined) writer.bytes(2, checked(options, "runtime options"));
}

function writeTime(field: number, value: Uint8Array | undefined): void {
  const { seconds, nanos } = decodeGoTime(value);
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

function checked(any: Uint8Array, what: string): Uint8Array {
  if (!isWireMessage(any))
    throw fail("DataLoss", `failed to unmarshal ${what}: cannot parse invalid wire-format data`);
  return any;
}
