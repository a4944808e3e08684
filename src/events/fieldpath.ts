/**
 * What a subscription's filter can see of an event. Source of the rules: containerd `core/events/events.go` and the code
 * that `cmd/protoc-gen-go-fieldpath` generates for `api/events/*.proto`.
 */
import type { DescField, Registry } from "@bufbuild/protobuf";
import { createRegistry, fromBinary, ScalarType } from "@bufbuild/protobuf";
import type { ReflectMessage } from "@bufbuild/protobuf/reflect";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { Any } from "@bufbuild/protobuf/wkt";
import { file_containerd_events_container } from "#gen/containerd/events/container_pb.ts";
import { file_containerd_events_content } from "#gen/containerd/events/content_pb.ts";
import { file_containerd_events_namespace } from "#gen/containerd/events/namespace_pb.ts";
import { file_containerd_events_sandbox } from "#gen/containerd/events/sandbox_pb.ts";
import { file_containerd_events_snapshot } from "#gen/containerd/events/snapshot_pb.ts";
import { file_containerd_events_task } from "#gen/containerd/events/task_pb.ts";
import { file_containerd_services_images_v1_image_events } from "#gen/containerd/services/images/v1/image_events_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";

/** The message types that have field paths: those of the files with `fieldpath_all`. */
let eventTypes: Registry | undefined;

/** Made when a filter first asks, because it decodes all of their descriptors. */
function readEventTypes(): Registry {
  eventTypes ??= createRegistry(
    file_containerd_events_container,
    file_containerd_events_content,
    file_containerd_events_namespace,
    file_containerd_events_sandbox,
    file_containerd_events_snapshot,
    file_containerd_events_task,
    file_containerd_services_images_v1_image_events,
  );
  return eventTypes;
}

/** Looks a field path up; undefined where the field is absent, empty or not a string, bool or label. */
export type FieldLookup = (path: readonly string[]) => string | undefined;

/** The fields of an envelope: `namespace`, `topic`, `event.<path>`. The payload is decoded once, when a filter first asks. */
export function envelopeFields(envelope: Envelope): FieldLookup {
  let payload: ReflectMessage | undefined;
  let decoded = false;
  return (path) => {
    switch (path[0]) {
      case "namespace":
        return envelope.namespace || undefined;
      case "topic":
        return envelope.topic || undefined;
      case "event":
        if (!decoded) {
          payload = decodeEvent(envelope.event);
          decoded = true;
        }
        return payload && messageField(payload, path.slice(1));
      default:
        return undefined;
    }
  };
}

/** The event inside an Any, if it is of a known type and well-formed. Type urls are full names, with or without a prefix. */
function decodeEvent(event: Any | undefined): ReflectMessage | undefined {
  if (event === undefined) return undefined;
  const schema = readEventTypes().getMessage(event.typeUrl.slice(event.typeUrl.lastIndexOf("/") + 1));
  if (schema === undefined) return undefined;
  try {
    return reflect(schema, fromBinary(schema, event.value));
  } catch {
    // A payload that is not what its type url says has no fields, as in containerd; it still reaches unfiltered subscribers.
    return undefined;
  }
}

function messageField(message: ReflectMessage, path: readonly string[]): string | undefined {
  const field = message.fields.find((candidate) => candidate.name === path[0]);
  return field && fieldValue(message, field, path.slice(1));
}

function fieldValue(message: ReflectMessage, field: DescField, rest: readonly string[]): string | undefined {
  switch (field.fieldKind) {
    case "scalar": {
      const value: unknown = message.get(field);
      if (field.scalar === ScalarType.BOOL) return String(value);
      return field.scalar === ScalarType.STRING && typeof value === "string" && value !== ""
        ? value
        : undefined;
    }
    case "map": {
      if (field.name !== "labels") return undefined;
      const value = message.get(field).get(rest.join("."));
      return typeof value === "string" ? value : undefined;
    }
    case "message": {
      if (!message.isSet(field) || field.message.typeName === "google.protobuf.Timestamp") return undefined;
      const child = message.get(field);
      if (field.message.typeName !== "google.protobuf.Any") return messageField(child, rest);
      const inner = decodeEvent(child.message as Any);
      return inner && messageField(inner, rest);
    }
    default:
      return undefined;
  }
}
