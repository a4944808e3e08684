import { createRegistry, type Registry } from "@bufbuild/protobuf";
import {
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
} from "@bufbuild/protobuf/wkt";
import { file_containerd_events_container } from "#gen/containerd/events/container_pb.ts";
import { file_containerd_events_content } from "#gen/containerd/events/content_pb.ts";
import { file_containerd_events_namespace } from "#gen/containerd/events/namespace_pb.ts";
import { file_containerd_events_sandbox } from "#gen/containerd/events/sandbox_pb.ts";
import { file_containerd_events_snapshot } from "#gen/containerd/events/snapshot_pb.ts";
import { file_containerd_events_task } from "#gen/containerd/events/task_pb.ts";
import { file_containerd_runc_v1_options } from "#gen/containerd/runc/v1/options_pb.ts";
import { file_containerd_runtime_bootstrap_v1_bootstrap } from "#gen/containerd/runtime/bootstrap/v1/bootstrap_pb.ts";
import { file_containerd_services_images_v1_image_events } from "#gen/containerd/services/images/v1/image_events_pb.ts";
import { file_containerd_types_descriptor } from "#gen/containerd/types/descriptor_pb.ts";
import { file_containerd_types_event } from "#gen/containerd/types/event_pb.ts";
import { file_containerd_types_introspection } from "#gen/containerd/types/introspection_pb.ts";
import { file_containerd_types_metrics } from "#gen/containerd/types/metrics_pb.ts";
import { file_containerd_types_mount } from "#gen/containerd/types/mount_pb.ts";
import { file_containerd_types_platform } from "#gen/containerd/types/platform_pb.ts";
import { file_containerd_types_sandbox } from "#gen/containerd/types/sandbox_pb.ts";
import { file_containerd_types_transfer_container } from "#gen/containerd/types/transfer/container_pb.ts";
import { file_containerd_types_transfer_imagestore } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import { file_containerd_types_transfer_importexport } from "#gen/containerd/types/transfer/importexport_pb.ts";
import { file_containerd_types_transfer_progress } from "#gen/containerd/types/transfer/progress_pb.ts";
import { file_containerd_types_transfer_registry } from "#gen/containerd/types/transfer/registry_pb.ts";
import { file_containerd_types_transfer_streaming } from "#gen/containerd/types/transfer/streaming_pb.ts";
import { file_containerd_v1_types_task } from "#gen/containerd/v1/types/task_pb.ts";
import { file_runtimeoptions_v1_options } from "#gen/runtimeoptions/v1/options_pb.ts";

/** The messages that travel inside an Any: events, runtime and process options, transfer's sources and destinations. */
export const anyTypes: Registry = createRegistry(
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
  file_containerd_events_container,
  file_containerd_events_content,
  file_containerd_events_namespace,
  file_containerd_events_sandbox,
  file_containerd_events_snapshot,
  file_containerd_events_task,
  file_containerd_runc_v1_options,
  file_containerd_runtime_bootstrap_v1_bootstrap,
  file_containerd_services_images_v1_image_events,
  file_containerd_types_descriptor,
  file_containerd_types_event,
  file_containerd_types_introspection,
  file_containerd_types_metrics,
  file_containerd_types_mount,
  file_containerd_types_platform,
  file_containerd_types_sandbox,
  file_containerd_types_transfer_container,
  file_containerd_types_transfer_imagestore,
  file_containerd_types_transfer_importexport,
  file_containerd_types_transfer_progress,
  file_containerd_types_transfer_registry,
  file_containerd_types_transfer_streaming,
  file_containerd_v1_types_task,
  file_runtimeoptions_v1_options,
);
