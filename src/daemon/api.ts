import type { DescService } from "@bufbuild/protobuf";
import { GarbageCollection } from "#gen/bunkerd/gc/v1/gc_pb.ts";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Mounts } from "#gen/containerd/services/mounts/v1/mounts_pb.ts";
import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { Controller, Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Streaming } from "#gen/containerd/services/streaming/v1/streaming_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { Transfer } from "#gen/containerd/services/transfer/v1/transfer_pb.ts";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { ImageService, RuntimeService } from "#gen/runtime/v1/api_pb.ts";

/** The services that the daemon serves as JSON too; reflection, which is for gRPC tools, is left out. */
export const API_SERVICES: readonly DescService[] = [
  Containers,
  Content,
  Images,
  Snapshots,
  Mounts,
  Diff,
  Streaming,
  Transfer,
  Namespaces,
  Leases,
  Store,
  Controller,
  Tasks,
  RuntimeService,
  ImageService,
  GarbageCollection,
  Events,
  Introspection,
  Version,
  Health,
];
