import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { compareSteps, step } from "../../support/comparison.ts";

compareSteps([
  step(Introspection, "plugins", { filters: ["id==containers"] }, /containers/),
  step(Introspection, "plugins", { filters: ["id=="] }),
  step(Introspection, "plugins", { filters: ["="] }, /invalid argument/),
  step(Introspection, "pluginInfo", { type: "io.containerd.x.v1", id: "y" }, /not found/),
]);
