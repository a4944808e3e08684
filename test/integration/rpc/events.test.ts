import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { any, compareSteps, fatal, none, spec, step } from "../../support/comparison.ts";

compareSteps([
  step(Events, "publish", { topic: "/a", event: spec }, undefined, none),
  step(Events, "publish", { topic: "/a/b", event: spec }),
  step(Events, "publish", { topic: "/a/b" }),
  ...["", "a", "/", "//", "/a/", "/a b", "/-", "/a.b"].map((topic) =>
    step(Events, "publish", { topic, event: spec }),
  ),
  step(Events, "publish", { topic: "/a", event: any("", "") }),
  step(Events, "forward", {
    envelope: { topic: "/a", namespace: "x", event: spec, timestamp: { seconds: 1n } },
  }),
  step(Events, "forward", {
    envelope: { topic: "/a", namespace: "", event: spec, timestamp: { seconds: 1n } },
  }),
  step(Events, "forward", {
    envelope: { topic: "a", namespace: "x", event: spec, timestamp: { seconds: 1n } },
  }),
  step(Events, "forward", { envelope: { topic: "/a", namespace: "x", timestamp: { seconds: 1n } } }),
  step(Events, "forward", { envelope: { topic: "/a", namespace: "x", event: spec } }),
  fatal(step(Events, "forward", {})),
]);
