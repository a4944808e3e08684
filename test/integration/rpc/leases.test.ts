import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { compareSteps, fatal, none, ODD_IDS, step, web } from "../../support/comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

const blob = { type: "content", id: `sha256:${"a".repeat(64)}` };

compareSteps([
  step(Leases, "list", {}, /namespace is required/, none),
  step(Leases, "list", {}),
  step(Leases, "create", {}),
  ...ODD_IDS.map((id) => step(Leases, "create", { id })),
  ...ODD_IDS.map((id) => step(Leases, "delete", { id })),
  step(Leases, "create", { id: "l", labels: { a: "b" } }, /"l"/),
  step(Leases, "create", { id: "l" }, /already exists/),
  step(Leases, "create", { id: "m", labels: { "containerd.io/gc.expire": "2000-01-01T00:00:00Z" } }),
  step(Leases, "create", { id: "bad", labels: { a: "x".repeat(4096) } }),
  step(Leases, "list", { filters: ["id==l"] }, /"l"/),
  step(Leases, "list", { filters: ["labels.a==b"] }, /"l"/),
  step(Leases, "list", { filters: ["id=l"] }, /invalid argument/),
  step(Leases, "addResource", { id: "missing", resource: blob }, /not found/),
  step(Leases, "addResource", { id: "l", resource: blob }),
  step(Leases, "addResource", { id: "l", resource: blob }),
  step(Leases, "addResource", { id: "l", resource: { type: "content", id: "nonsense" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "ingests", id: "up" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "snapshots", id: "s" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "snapshots/native", id: "s" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "snapshots/a/b", id: "s" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "images", id: "docker.io/library/x:1" } }),
  step(Leases, "addResource", { id: "l", resource: { type: "nonsense", id: "s" } }),
  step(Leases, "addResource", { id: "l", resource: {} }),
  fatal(step(Leases, "addResource", { id: "l" })),
  step(Leases, "listResources", { id: "l" }, /snapshots\/native/),
  step(Leases, "listResources", { id: "missing" }, /not found/),
  step(Leases, "deleteResource", { id: "l", resource: blob }),
  step(Leases, "deleteResource", { id: "l", resource: blob }),
  step(Leases, "deleteResource", { id: "l", resource: { type: "nonsense", id: "s" } }),
  step(Leases, "deleteResource", { id: "missing", resource: blob }, /not found/),
  step(Leases, "listResources", { id: "l" }),
  step(Leases, "delete", { id: "l", sync: true }),
  step(Leases, "delete", { id: "l" }, /not found/),
  step(Leases, "create", { id: "held" }),
  step(
    Containers,
    "create",
    { container: { ...web, id: "leased" } },
    /leased/,
    inNamespace("default", { "containerd-lease": "held" }),
  ),
  step(
    Containers,
    "create",
    { container: { ...web, id: "leased2" } },
    undefined,
    inNamespace("default", { "containerd-lease": "none" }),
  ),
  step(Leases, "listResources", { id: "held" }),
]);
