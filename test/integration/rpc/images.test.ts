import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { compareSteps, fatal, mask, none, ODD_DIGESTS, ODD_IDS, step } from "../../support/comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

const digest = `sha256:${"a".repeat(64)}`;
const target = { mediaType: "application/vnd.oci.image.index.v1+json", digest, size: 7n };
const image = { name: "docker.io/library/x:1", target };
const EXPIRES = { "containerd.io/gc.expire": "2099-01-01T00:00:00Z" };

const GOOD_DIGESTS = [`sha384:${"b".repeat(96)}`, `sha512:${"c".repeat(128)}`];

const anyTarget = (wanted: string) => ({ ...target, digest: wanted });

compareSteps([
  step(Images, "get", { name: "x" }, /namespace is required/, none),
  step(Images, "get", { name: "x" }, /image "x": not found/),
  step(Images, "get", { name: "" }, /not found/),
  step(Images, "list", {}),
  step(Images, "create", { image: { name: "", target } }, /Image.Name required/, none),
  step(Images, "create", { image: { name: "", target } }, /Image.Name required/),
  fatal(step(Images, "create", {})),
  fatal(step(Images, "create", { image: { name: "bare" } })),
  step(Images, "create", { image }, /docker.io/),
  step(Images, "create", { image }, /already exists/),
  ...ODD_DIGESTS.map((wanted) =>
    step(Images, "create", { image: { name: "bad", target: anyTarget(wanted) } }, /invalid argument/),
  ),
  ...GOOD_DIGESTS.map((wanted, index) =>
    step(Images, "create", { image: { name: `good${index}`, target: anyTarget(wanted) } }, /good/),
  ),
  step(Images, "create", { image: { name: "s", target: { ...target, size: 0n } } }, /Size/),
  step(Images, "create", { image: { name: "s", target: { ...target, size: -1n } } }, /Size/),
  step(Images, "create", { image: { name: "s", target: { ...target, size: 2n ** 62n } } }),
  step(Images, "create", { image: { name: "m", target: { ...target, mediaType: "" } } }, /MediaType/),
  ...ODD_IDS.filter((name) => name !== "").map((name) => step(Images, "create", { image: { name, target } })),
  ...ODD_IDS.filter((name) => name !== "").map((name) => step(Images, "delete", { name })),
  step(Images, "delete", { name: "" }, /not found/),
  step(Images, "create", {
    image: { name: "labelled", target, labels: { a: "b", "c.d/e": "f", empty: "" } },
  }),
  step(Images, "create", { image: { name: "big", target, labels: { a: "x".repeat(4096) } } }, /image.Labels/),
  step(Images, "create", {
    image: { name: "annotated", target: { ...target, annotations: { k: "v", "l.m": "n", e: "" } } },
  }),
  step(Images, "create", {
    image: { name: "epoch", target, createdAt: { seconds: 5n } },
    sourceDateEpoch: { seconds: 1_000_000n, nanos: 7 },
  }),
  step(Images, "get", { name: "annotated" }),
  step(Images, "get", { name: "labelled" }),
  step(Images, "list", {}, /labelled/),
  ...[
    "name==labelled",
    "name!=labelled",
    "name~=^l",
    "target.digest~=^sha512",
    "target.mediatype==x",
    "target",
    "target.size==7",
    "labels.a==b",
    'labels."c.d/e"==f',
    "labels.empty",
    "annotations.k==v",
    "annotations.l.m==n",
    "nonsense",
    "name=x",
  ].map((filter) => step(Images, "list", { filters: [filter] })),
  fatal(step(Images, "update", {})),
  step(Images, "update", { image: { name: "", target } }, /Image.Name required/),
  fatal(step(Images, "update", { image: { name: "labelled" } })),
  step(Images, "update", { image: { name: "missing", target } }, /not found/),
  step(Images, "update", {
    image: { name: "labelled", target, labels: { x: "y" } },
    updateMask: mask("labels"),
  }),
  step(Images, "update", {
    image: { name: "labelled", target, labels: { x: "z", n: "m" } },
    updateMask: mask("labels.x"),
  }),
  step(Images, "update", { image: { name: "labelled", target }, updateMask: mask("labels.x") }),
  step(Images, "update", {
    image: { name: "labelled", target: { ...target, size: 9n, mediaType: "m/t" } },
    updateMask: mask("target"),
  }),
  step(Images, "update", {
    image: { name: "annotated", target: { ...target, annotations: { o: "p" } } },
    updateMask: mask("annotations"),
  }),
  step(Images, "update", {
    image: { name: "annotated", target: { ...target, annotations: { q: "r" } } },
    updateMask: mask("annotations.q"),
  }),
  step(Images, "update", { image: { name: "labelled", target }, updateMask: mask("name") }, /cannot update/),
  step(Images, "update", { image: { name: "labelled", target }, updateMask: mask("") }, /cannot update/),
  step(Images, "update", { image: { name: "labelled", target: {} }, updateMask: mask("target") }, /Digest/),
  step(Images, "update", {
    image: { name: "labelled", target, labels: { only: "this" } },
    sourceDateEpoch: { seconds: 2_000_000n },
  }),
  step(
    Images,
    "update",
    { image: { name: "labelled", target, labels: { a: "x".repeat(4096) } }, updateMask: mask("labels") },
    /invalid argument/,
  ),
  step(Images, "get", { name: "labelled" }),
  step(Images, "delete", { name: "labelled", target: anyTarget(GOOD_DIGESTS[0] ?? "") }, /has target/),
  step(Images, "delete", { name: "missing", target }, /not found/),
  step(Images, "delete", { name: "labelled", target }),
  step(Images, "delete", { name: "annotated", sync: true }),
  step(Images, "delete", { name: "annotated" }, /not found/),
  step(Images, "delete", { name: "x" }, /not found/, inNamespace("nowhere")),
  step(Leases, "create", { id: "held" }),
  step(
    Images,
    "create",
    { image: { name: "expires", target, labels: EXPIRES } },
    undefined,
    inNamespace("default", { "containerd-lease": "held" }),
  ),
  step(
    Images,
    "create",
    { image: { name: "stays", target } },
    undefined,
    inNamespace("default", { "containerd-lease": "held" }),
  ),
  step(
    Images,
    "create",
    { image: { name: "unheld", target, labels: EXPIRES } },
    /lease does not exist/,
    inNamespace("default", { "containerd-lease": "none" }),
  ),
  step(Leases, "listResources", { id: "held" }, /expires/),
  step(
    Images,
    "delete",
    { name: "expires" },
    undefined,
    inNamespace("default", { "containerd-lease": "held" }),
  ),
  step(Leases, "listResources", { id: "held" }),
]);
