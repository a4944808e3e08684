import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { compareSteps, departs, fatal, mask, none, ODD_IDS, step, web } from "../../support/comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

compareSteps([
  step(Namespaces, "get", { name: "n" }, /"n"/, none),
  step(Namespaces, "list", {}, undefined, none),
  fatal(step(Namespaces, "create", {}, undefined, none)),
  ...ODD_IDS.map((name) => step(Namespaces, "create", { namespace: { name } }, undefined, none)),
  ...ODD_IDS.map((name) => step(Namespaces, "get", { name }, undefined, none)),
  ...ODD_IDS.map((name) => step(Namespaces, "delete", { name }, undefined, none)),
  step(Namespaces, "create", { namespace: { name: "n", labels: { a: "b" } } }, /"n"/, none),
  step(Namespaces, "create", { namespace: { name: "n" } }, /already exists/, none),
  step(
    Namespaces,
    "create",
    { namespace: { name: "big", labels: { a: "x".repeat(4096) } } },
    /invalid argument/,
    none,
  ),
  step(Namespaces, "get", { name: "big" }, undefined, none),
  step(Namespaces, "get", { name: "n" }, /"a"/, none),
  step(Namespaces, "list", { filter: "name==n" }, undefined, none),
  step(Namespaces, "list", { filter: "(" }, undefined, none),
  step(Namespaces, "update", { namespace: { name: "n", labels: { c: "d" } } }, /Update/, none),
  step(
    Namespaces,
    "update",
    { namespace: { name: "n", labels: { e: "f" } }, updateMask: mask("labels") },
    undefined,
    none,
  ),
  step(
    Namespaces,
    "update",
    { namespace: { name: "n", labels: { e: "" } }, updateMask: mask("labels.e") },
    undefined,
    none,
  ),
  step(
    Namespaces,
    "update",
    { namespace: { name: "n", labels: { g: "h" } }, updateMask: mask("name") },
    /InvalidArgument/,
    none,
  ),
  step(
    Namespaces,
    "update",
    { namespace: { name: "n" }, updateMask: mask("labels.missing") },
    undefined,
    none,
  ),
  departs(
    { code: "InvalidArgument", message: /^namespace\.Labels: label key and value length/ },
    step(
      Namespaces,
      "update",
      { namespace: { name: "n", labels: { l: "x".repeat(4096) } } },
      undefined,
      none,
    ),
  ),
  step(Namespaces, "get", { name: "n" }, undefined, none),
  step(Namespaces, "update", { namespace: { name: "made", labels: { l: "x" } } }, undefined, none),
  step(Namespaces, "get", { name: "made" }, undefined, none),
  step(Namespaces, "delete", { name: "made" }, undefined, none),
  step(Containers, "create", { container: web }, /web/, inNamespace("n")),
  step(Namespaces, "delete", { name: "n" }, /failed precondition/, none),
  step(Containers, "delete", { id: "web" }, undefined, inNamespace("n")),
  step(Leases, "create", { id: "l" }, undefined, inNamespace("n")),
  step(Namespaces, "delete", { name: "n" }, undefined, none),
  step(Leases, "delete", { id: "l" }, undefined, inNamespace("n")),
  step(Namespaces, "delete", { name: "n" }, undefined, none),
  step(Namespaces, "delete", { name: "n" }, /not found/, none),
  step(Namespaces, "list", {}, undefined, none),
]);
