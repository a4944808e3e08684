/**
 * Runs critest of kubernetes-sigs/cri-tools, built outside the repository, on containerd and on bunkerd, and writes what passed:
 *
 *     unshare --net --mount --propagation private bun test/conformance/cri/critest.ts CRITEST [KIND ...] [-- critest's own flags]
 *
 * Everything happens in the network and mount namespaces that `unshare` makes: registry, bridge, pods. The results stand in
 * `test/conformance/cri/results/<kind>.txt`, a case a line.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Daemon, type DaemonKind, startDaemon } from "../../support/daemons.ts";
import { run } from "../../support/processes.ts";
import { startNode } from "./node.ts";

interface Spec {
  readonly ContainerHierarchyTexts: readonly string[] | null;
  readonly LeafNodeText: string;
  readonly LeafNodeType: string;
  readonly State: string;
  readonly Failure?: { readonly Message: string };
}

async function runCritest(critest: string, daemon: Daemon, flags: readonly string[]): Promise<Spec[]> {
  const report = join(daemon.folder, "report.json");
  const images = join(daemon.folder, "images.yaml");
  writeFileSync(images, "defaultTestContainerImage: registry.k8s.io/e2e-test-images/busybox:1.29-2\n");
  const endpoint = `unix://${daemon.socket}`;
  const command = [
    critest,
    `--runtime-endpoint=${endpoint}`,
    `--image-endpoint=${endpoint}`,
    `--test-images-file=${images}`,
    `--ginkgo.json-report=${report}`,
    "--ginkgo.no-color",
    ...flags,
  ];
  const finished = await run(command, { cwd: daemon.folder });
  writeFileSync(`/tmp/critest-${daemon.kind}.log`, finished.stdout + finished.stderr);
  const [suite] = (await Bun.file(report).json()) as { SpecReports: Spec[] | null }[];
  return (suite?.SpecReports ?? []).filter(({ LeafNodeType }) => LeafNodeType === "It");
}

function lineOf(spec: Spec): string {
  return `${spec.State}: ${[...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(" ")}`;
}

const [critest, ...rest] = process.argv.slice(2);
if (critest === undefined) throw new Error("usage: critest.ts CRITEST [KIND ...] [-- flags]");
const split = rest.includes("--") ? rest.indexOf("--") : rest.length;
const flags = rest.slice(split + 1);
const kinds = (split === 0 ? ["containerd-2.1", "bunkerd"] : rest.slice(0, split)) as DaemonKind[];

await using node = await startNode();
for (const kind of kinds) {
  const daemon = await startDaemon(kind, node.daemonOptions(kind));
  const specs = await runCritest(critest, daemon, flags);
  const results = join(import.meta.dir, "results");
  mkdirSync(results, { recursive: true });
  if (flags.length === 0)
    writeFileSync(join(results, `${kind}.txt`), `${specs.map(lineOf).sort().join("\n")}\n`);
  for (const spec of specs) {
    if (spec.State === "failed" || flags.length > 0) {
      process.stdout.write(`${kind}: ${lineOf(spec)}\n${spec.Failure?.Message ?? ""}\n`);
    }
  }
  const count = (state: string) => specs.filter(({ State }) => State === state).length;
  process.stdout.write(
    `${kind}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped\n`,
  );
  writeFileSync(`/tmp/critest-${kind}.daemon.log`, daemon.log());
  await daemon.stop();
}
