import { create } from "@bufbuild/protobuf";
import {
  type Container,
  ContainerSchema,
  Containers,
  type CreateContainerRequest,
  type UpdateContainerRequest,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { wireFields } from "../lib/wire.ts";
import { type ContainerRecord, recordOf, recordOfWire } from "../model/container-record.ts";
import type { ContainerStore, EncodedContainers } from "../model/containers.ts";
import { BunkerdError } from "../model/errors.ts";
import { PartedMessage } from "../transport/grpc/parted-message.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

export interface ContainersDependencies {
  readonly containers: ContainerStore;
  /** Answers for gRPC as ready bytes; without it gRPC uses `containers`. */
  readonly encoded?: EncodedContainers;
}

/** containerd.services.containers.v1.Containers. Source of wording: containerd `plugins/services/containers/local.go`. */
export function containersService(dependencies: ContainersDependencies): ServiceBinding<typeof Containers> {
  const { containers, encoded } = dependencies;
  return bind(
    Containers,
    {
      async get({ id }, context) {
        return { container: await containers.get(scopeOf(context), id) };
      },
      async list({ filters }, context) {
        return { containers: await containers.list(scopeOf(context), filters) };
      },
      async *listStream({ filters }, context) {
        for (const container of await containers.list(scopeOf(context), filters)) yield { container };
      },
      async create(request, context) {
        return { container: await containers.create(scopeOf(context), sentOf(request)) };
      },
      async update(request, context) {
        const container = updateOf(request);
        return { container: await containers.update(scopeOf(context), container, request.updateMask?.paths) };
      },
      async delete({ id }, context) {
        await containers.delete(scopeOf(context), id);
        return {};
      },
    },
    encoded && {
      get: ({ id }, context) => encoded.getEncoded(scopeOf(context), id),
      list: ({ filters }, context) => new PartedMessage(encoded.listEncoded(scopeOf(context), filters)),
      listStream: ({ filters }, context) => encoded.listEncoded(scopeOf(context), filters),
      create: (request, context) => encoded.createEncoded(scopeOf(context), recordOf(sentOf(request))),
      update: (request, context) =>
        encoded.updateEncoded(scopeOf(context), recordOf(updateOf(request)), request.updateMask?.paths),
    },
    encoded && {
      get(request, context) {
        const id = onlyText(request);
        return id === undefined ? undefined : encoded.getEncoded(scopeOf(context), id);
      },
      create(request, context) {
        const change = readChange(request);
        return change && encoded.createEncoded(scopeOf(context), change.record);
      },
      update(request, context) {
        const change = readChange(request);
        if (change === undefined || change.record.id === "") return undefined;
        return encoded.updateEncoded(scopeOf(context), change.record, change.paths);
      },
    },
  );
}

/** A request without a container means an empty one. */
function sentOf({ container }: CreateContainerRequest | UpdateContainerRequest): Container {
  return container ?? create(ContainerSchema);
}

/** @throws InvalidArgument */
function updateOf(request: UpdateContainerRequest): Container {
  const container = sentOf(request);
  if (container.id === "") throw new BunkerdError("InvalidArgument", "Container.ID required");
  return container;
}

/** The text of a request that holds but one short field 1 of ASCII. */
function onlyText(request: Uint8Array): string | undefined {
  const size = request[1] ?? 0;
  if (request[0] !== CONTAINER_TAG || size >= 0x80 || request.length !== 2 + size) return undefined;
  return asciiOf(request, 2, request.length);
}

function asciiOf(bytes: Uint8Array, start: number, end: number): string | undefined {
  for (let at = start; at < end; at++) if ((bytes[at] ?? 0) >= 0x80) return undefined;
  return latin1Slice.call(bytes, start, end);
}

interface Change {
  readonly record: ContainerRecord;
  readonly paths: readonly string[];
}

/** Field 1 of CreateContainerRequest and UpdateContainerRequest, and the id of the others. */
const CONTAINER_TAG = 0x0a;

/** A CreateContainerRequest or an UpdateContainerRequest as clients commonly write it; undefined for others. */
function readChange(request: Uint8Array): Change | undefined {
  if (request[0] !== CONTAINER_TAG) return undefined;
  const fields = wireFields(request);
  const container = fields.next().value;
  const record = container && recordOfWire(container.content);
  if (record === undefined) return undefined;
  const mask = fields.next().value;
  if (mask === undefined) return container?.end === request.length ? { record, paths: [] } : undefined;
  const paths = mask.number === 2 ? readPaths(mask.content) : undefined;
  return paths !== undefined && mask.end === request.length ? { record, paths } : undefined;
}

/** The paths of a FieldMask. */
function readPaths(mask: Uint8Array): string[] | undefined {
  const paths: string[] = [];
  for (const path of wireFields(mask)) {
    // Empty may also be a number.
    if (path?.number !== 1 || path.content.length === 0) return undefined;
    const text = asciiOf(path.content, 0, path.content.length);
    if (text === undefined) return undefined;
    paths.push(text);
  }
  return paths.length === 0 ? undefined : paths;
}

const { latin1Slice } = Buffer.prototype;
