import type { CallOptions } from "@connectrpc/connect";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { quote } from "../../../src/model/errors.ts";
import {
  compareSteps,
  departs,
  fatal,
  mask,
  none,
  ODD_IDS,
  type Step,
  step,
} from "../../support/comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

const leased: CallOptions = inNamespace("default", { "containerd-lease": "held" });
const unleased: CallOptions = inNamespace("default", { "containerd-lease": "none" });
const mapped = {
  "containerd.io/snapshot/uidmapping": "0:100000:65536",
  "containerd.io/snapshot/gidmapping": "0:200000:65536",
};

/** No snapshot here is one that garbage collection keeps. */
const NO_COLLECTION = `[plugins."io.containerd.gc.v1.scheduler"]
mutation_threshold = 0
deletion_threshold = 0
startup_delay = "1h"`;

/** A list's messages one after the other: they come as a stream. */
function list(
  request: { snapshotter: string; filters?: string[] },
  shows?: RegExp,
  options = inNamespace("default"),
): Step {
  return {
    name: `Snapshots.list ${JSON.stringify(request)}`,
    async call(connection) {
      const all: unknown[] = [];
      for await (const { info } of connection.client(Snapshots).list(request, options)) all.push(...info);
      return all;
    },
    shows,
  };
}

/** containerd's message would not stay on one line. */
function unlessPlain(key: string, missing: Step): Step {
  if (!/[\0\n]/.test(key)) return missing;
  return departs({ code: "NotFound", message: `snapshot ${quote(key)} does not exist: not found` }, missing);
}

function stepsOf(snapshotter: "overlayfs" | "native"): Step[] {
  const s = { snapshotter };
  return [
    step(Snapshots, "stat", { ...s, key: "missing" }, /namespace is required/, none),
    step(Snapshots, "stat", { ...s, key: "missing" }, /snapshot missing does not exist: not found/),
    list(s),
    step(Snapshots, "commit", { ...s, key: "missing", name: "x" }, /can not find snapshotter/),
    step(Snapshots, "remove", { ...s, key: "missing" }, /not found/),
    step(Snapshots, "mounts", { ...s, key: "missing" }, /not found/),
    step(Snapshots, "usage", { ...s, key: "missing" }, /not found/),
    step(
      Snapshots,
      "prepare",
      { ...s, key: "a", parent: "missing" },
      /parent snapshot missing does not exist/,
    ),
    step(Snapshots, "prepare", { ...s, key: "a", parent: "" }, /rbind/),
    step(Snapshots, "prepare", { ...s, key: "a", parent: "" }, /snapshot "a": already exists/),
    step(Snapshots, "view", { ...s, key: "a", parent: "" }, /already exists/),
    step(Snapshots, "stat", { ...s, key: "a" }, /"kind":2/),
    step(Snapshots, "mounts", { ...s, key: "a" }, /"rw"/),
    step(Snapshots, "usage", { ...s, key: "a" }, /"inodes":"1"/),
    step(Snapshots, "prepare", { ...s, key: "b", parent: "a" }, /is not committed/),
    step(Snapshots, "commit", {
      ...s,
      key: "a",
      name: "c1",
      labels: { x: "y", "containerd.io/snapshot/z": "1" },
    }),
    step(Snapshots, "stat", { ...s, key: "a" }, /not found/),
    step(Snapshots, "stat", { ...s, key: "c1" }, /"kind":3/),
    step(Snapshots, "usage", { ...s, key: "c1" }, /"inodes":"1"/),
    step(Snapshots, "mounts", { ...s, key: "c1" }, /not active or view/),
    step(Snapshots, "commit", { ...s, key: "c1", name: "c2" }, /is not active/),
    step(Snapshots, "view", { ...s, key: "v1", parent: "c1" }, /"ro"/),
    step(Snapshots, "commit", { ...s, key: "missing", name: "c1" }, /snapshot "c1": already exists/),
    step(Snapshots, "commit", { ...s, key: "missing", name: "c2" }, /snapshot missing does not exist/),
    step(Snapshots, "prepare", {
      ...s,
      key: "a2",
      parent: "c1",
      labels: { "containerd.io/snapshot/own": "1", other: "2" },
    }),
    step(Snapshots, "stat", { ...s, key: "a2" }, /snapshot\/own/),
    step(Snapshots, "commit", { ...s, key: "a2", name: "c2", parent: "v1" }),
    step(Snapshots, "stat", { ...s, key: "c2" }),
    step(
      Snapshots,
      "prepare",
      { ...s, key: "a3", parent: "c2" },
      snapshotter === "native" ? /rbind/ : /lowerdir=/,
    ),
    step(
      Snapshots,
      "view",
      { ...s, key: "v3", parent: "c2" },
      snapshotter === "native" ? /rbind/ : /lowerdir=/,
    ),
    step(Snapshots, "view", { ...s, key: "v0", parent: "" }, /"ro"/),
    step(Snapshots, "remove", { ...s, key: "c1" }, /cannot remove snapshot with child: failed precondition/),
    step(Snapshots, "update", { ...s, info: { name: "a3", labels: { a: "1", b: "2" } } }, /"a":"1"/),
    step(
      Snapshots,
      "update",
      { ...s, info: { name: "a3", labels: { a: "3" } }, updateMask: mask("labels.a") },
      /"b":"2"/,
    ),
    step(Snapshots, "update", {
      ...s,
      info: { name: "a3", labels: { "containerd.io/snapshot/i": "1" } },
      updateMask: mask("labels"),
    }),
    step(Snapshots, "update", {
      ...s,
      info: { name: "a3" },
      updateMask: mask("labels.containerd.io/snapshot/i", "labels.none"),
    }),
    step(
      Snapshots,
      "update",
      { ...s, info: { name: "a3", parent: "x" }, updateMask: mask("parent") },
      /cannot update "parent"/,
    ),
    step(Snapshots, "update", { ...s, info: { name: "a3", labels: { x: "y".repeat(4096) } } }, /info.Labels/),
    step(Snapshots, "update", { ...s, info: { name: "missing" } }, /not found/),
    step(Snapshots, "update", { ...s, info: {} }, /invalid argument/),
    fatal(step(Snapshots, "update", s)),
    step(Snapshots, "stat", { ...s, key: "a3" }),
    step(
      Snapshots,
      "prepare",
      { ...s, key: "big", parent: "", labels: { x: "y".repeat(4096) } },
      /info.Labels/,
    ),
    step(
      Snapshots,
      "prepare",
      { ...s, key: "ref", parent: "c1", labels: { "containerd.io/snapshot.ref": "c2" } },
      /target snapshot "c2": already exists/,
    ),
    step(Snapshots, "prepare", {
      ...s,
      key: "ref",
      parent: "c1",
      labels: { "containerd.io/snapshot.ref": "c9" },
    }),
    step(Snapshots, "prepare", { ...s, key: "mapped", parent: "", labels: mapped }),
    step(Snapshots, "prepare", { ...s, key: "mapped2", parent: "c1", labels: mapped }),
    step(Snapshots, "view", { ...s, key: "mapped3", parent: "c1", labels: mapped }),
    list(s, /"c2"/),
    list({ ...s, filters: ["kind==committed"] }, /"c1"/),
    list({ ...s, filters: ["parent==c1", "name==v0"] }, /"v0"/),
    list({ ...s, filters: ['labels."containerd.io/snapshot/own"==1'] }),
    list({ ...s, filters: ["labels.x==y"] }, /"c1"/),
    list(s, /^\[\]$/, inNamespace("elsewhere")),
    step(Snapshots, "stat", { ...s, key: "c1" }, /not found/, inNamespace("elsewhere")),
    step(Snapshots, "prepare", { ...s, key: "c1", parent: "" }, /rbind/, inNamespace("elsewhere")),
    step(Namespaces, "delete", { name: "elsewhere" }, /failed precondition/),
    step(Snapshots, "remove", { ...s, key: "c1" }, undefined, inNamespace("elsewhere")),
    step(Namespaces, "delete", { name: "elsewhere" }),
    step(Leases, "create", { id: "held" }),
    step(Snapshots, "prepare", { ...s, key: "leased", parent: "c1" }, /rbind|overlay/, leased),
    step(Snapshots, "prepare", { ...s, key: "leased", parent: "c1" }, /already exists/, leased),
    step(Snapshots, "prepare", { ...s, key: "a3", parent: "c1" }, /already exists/, leased),
    step(Snapshots, "prepare", { ...s, key: "a3", parent: "c1" }, /lease does not exist/, unleased),
    step(Leases, "listResources", { id: "held" }, /"leased"/),
    step(Snapshots, "commit", { ...s, key: "leased", name: "leased-c" }, undefined, leased),
    step(Snapshots, "commit", { ...s, key: "ref", name: "c2" }, /already exists/, leased),
    step(Snapshots, "commit", { ...s, key: "ref", name: "ref-c" }, /lease does not exist/, unleased),
    step(Leases, "listResources", { id: "held" }, /"leased-c"/),
    step(Snapshots, "remove", { ...s, key: "leased-c" }, undefined, leased),
    step(Leases, "listResources", { id: "held" }),
    step(Leases, "delete", { id: "held" }),
    ...ODD_IDS.filter((key) => key !== "").flatMap((key) => [
      step(Snapshots, "prepare", { ...s, key, parent: "" }),
      step(Snapshots, "stat", { ...s, key }),
      step(Snapshots, "commit", { ...s, key, name: `${key}!` }),
      unlessPlain(key, step(Snapshots, "commit", { ...s, key, name: `${key}!!` })),
      step(Snapshots, "remove", { ...s, key: `${key}!` }),
    ]),
    ...["v3", "v0", "v1", "a3", "ref", "c2", "mapped2", "mapped3", "c1", "mapped"].map((key) =>
      step(Snapshots, "remove", { ...s, key }),
    ),
    list(s),
    // containerd has made the snapshot, and so used up an id, before it sees that there is no lease.
    step(
      Snapshots,
      "prepare",
      { ...s, key: "unleased", parent: "" },
      /lease does not exist: not found/,
      unleased,
    ),
    departs(
      { code: "InvalidArgument", message: "snapshot key required: invalid argument" },
      step(Snapshots, "prepare", { ...s, key: "", parent: "" }),
    ),
    departs(
      { code: "InvalidArgument", message: "snapshot name required: invalid argument" },
      step(Snapshots, "commit", { ...s, key: "a3", name: "" }),
    ),
    step(Snapshots, "stat", { ...s, key: "" }),
    step(Snapshots, "remove", { ...s, key: "" }),
    departs(
      { code: "InvalidArgument", message: /bytes: invalid argument$/ },
      step(Snapshots, "prepare", { ...s, key: "k".repeat(2 << 20), parent: "" }),
    ),
  ];
}

compareSteps(
  [
    step(Snapshots, "stat", { key: "x" }, /snapshotter argument missing: invalid argument/),
    step(Snapshots, "stat", { snapshotter: "x", key: "x" }, /snapshotter not loaded: x: invalid argument/),
    list({ snapshotter: "x" }, /snapshotter not loaded: x: invalid argument/),
    list({ snapshotter: "" }, /snapshotter argument missing/),
    departs({ code: "InvalidArgument", message: /./ }, list({ snapshotter: "native", filters: ["=="] })),
    departs(
      { code: "FailedPrecondition", message: /namespace is required/ },
      list({ snapshotter: "native" }, undefined, none),
    ),
    ...stepsOf("overlayfs"),
    ...stepsOf("native"),
  ],
  NO_COLLECTION,
);
