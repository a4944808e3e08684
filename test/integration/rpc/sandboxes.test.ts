import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { compareSteps, fatal, none, ODD_IDS, runtime, spec, step } from "../../support/comparison.ts";

const sandbox = { sandboxId: "pod", runtime, spec };

compareSteps([
  step(Store, "get", { sandboxId: "pod" }, /namespace is required/, none),
  step(Store, "get", { sandboxId: "pod" }, /not found/),
  step(Store, "list", {}),
  fatal(step(Store, "create", {})),
  ...ODD_IDS.map((sandboxId) => step(Store, "create", { sandbox: { ...sandbox, sandboxId } })),
  ...ODD_IDS.map((sandboxId) => step(Store, "delete", { sandboxId })),
  fatal(step(Store, "create", { sandbox: { sandboxId: "bare" } })),
  step(
    Store,
    "create",
    { sandbox: { ...sandbox, labels: { a: "b" }, extensions: { e: spec }, sandboxer: "shim" } },
    /pod/,
  ),
  step(Store, "create", { sandbox }, /already exists/),
  step(Store, "create", { sandbox: { ...sandbox, sandboxId: "big", labels: { a: "x".repeat(4096) } } }),
  step(Store, "get", { sandboxId: "pod" }, /shim/),
  step(Store, "list", { filters: ["id==pod"] }),
  step(Store, "list", { filters: ["labels.a==b"] }),
  step(Store, "list", { filters: ["id="] }, /invalid argument/),
  step(Store, "update", { sandbox: { ...sandbox, labels: { c: "d" } }, fields: ["labels"] }),
  step(Store, "update", { sandbox: { ...sandbox, labels: { c: "e", x: "y" } }, fields: ["labels.c"] }),
  step(Store, "update", { sandbox: { ...sandbox, extensions: { f: spec } }, fields: ["extensions.f"] }),
  step(Store, "update", { sandbox: { ...sandbox, sandboxer: "other" }, fields: ["sandboxer"] }),
  step(Store, "update", { sandbox: { ...sandbox }, fields: ["spec"] }),
  step(Store, "update", { sandbox: { ...sandbox }, fields: ["runtime"] }),
  step(Store, "update", { sandbox: { ...sandbox }, fields: ["id"] }),
  step(Store, "update", { sandbox: { ...sandbox }, fields: ["nonsense"] }),
  step(Store, "update", { sandbox: { ...sandbox, labels: { only: "this" } } }),
  step(Store, "update", { sandbox: { ...sandbox, sandboxId: "missing" }, fields: ["labels"] }, /not found/),
  fatal(step(Store, "update", {})),
  step(Store, "get", { sandboxId: "pod" }),
  step(Store, "delete", { sandboxId: "pod" }),
  step(Store, "delete", { sandboxId: "pod" }, /not found/),
  step(Store, "delete", { sandboxId: "" }),
]);
