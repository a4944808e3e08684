import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { compareSteps, departs, fatal, none, step } from "../../support/comparison.ts";

const OCI = "application/vnd.oci.image.layer.v1.tar";
const digest = `sha256:${"0".repeat(64)}`;
const bind = { type: "bind", source: "/nonexistent", options: ["rbind", "rw"] };

compareSteps([
  fatal(step(Diff, "apply", {})),
  step(Diff, "apply", { diff: { mediaType: OCI, digest } }, /namespace is required/, none),
  // Where containerd mounts is nobody's business, and bunkerd mounts only what must be.
  departs(
    { code: "FailedPrecondition", message: "namespace is required: failed precondition" },
    step(Diff, "diff", {}, /mount callback failed on .*namespace is required/, none),
  ),
  step(
    Diff,
    "apply",
    { diff: { mediaType: OCI, digest } },
    /failed to get reader from content store.*not found/,
  ),
  step(Diff, "apply", { diff: { mediaType: OCI, digest }, mounts: [bind] }, /not found/),
  step(Diff, "apply", { diff: { mediaType: "x", digest } }, /not found/),
  step(Diff, "diff", { mediaType: "x" }, /unsupported diff media type: x: not implemented/),
  step(Diff, "diff", { mediaType: `${OCI}+encrypted` }, /not implemented/),
  departs(
    { code: "Unknown", message: /^diff: ENOENT: no such file or directory/ },
    step(Diff, "diff", { left: [bind], right: [bind] }, /no such file or directory/),
  ),
  step(
    Diff,
    "diff",
    { mediaType: OCI, ref: "empty" },
    /5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef/,
  ),
  step(Diff, "diff", { mediaType: OCI, ref: "empty" }, /"size":"1024"/),
  departs(
    { code: "InvalidArgument", message: /^failed to commit: info.Labels: label key and value length/ },
    step(
      Diff,
      "diff",
      { mediaType: OCI, labels: { l: "x".repeat(5000) } },
      /mount callback failed on .*failed to commit: info.Labels/,
    ),
  ),
]);
