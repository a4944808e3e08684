/**
 * Makes, labels, finds and deletes a container, on bunkerd or containerd:
 *
 *     bun docs/sample/containers.ts /run/bunkerd/bunkerd.sock [namespace]
 */
import { Client, isError, withImageName, withLabels, withSpec } from "bunkerd/client";

const [address = "/run/bunkerd/bunkerd.sock", namespace = "default"] = process.argv.slice(2);
const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const scope = { namespace };

using client = await Client.connect(address);
const containers = client.containers();

const web = await client.newContainer(
  scope,
  "sample-web",
  withImageName("docker.io/library/nginx:latest"),
  withLabels({ tier: "front" }),
  withSpec({ ociVersion: "1.2.0", process: { args: ["nginx"], cwd: "/" }, root: { path: "rootfs" } }),
);
say(`created ${web.id} from ${web.image}`);

// Only the label that the field path names is changed.
const changed = await containers.update(scope, { ...web, labels: { team: "docs" } }, ["labels.team"]);
say(`${changed.id} is labelled team=${changed.labels["team"]}`);

const found = await containers.list(scope, ["labels.team==docs"]);
say(`with team=docs: ${found.map(({ id }) => id).join(", ")}`);

await containers.delete(scope, web.id);
say(`deleted ${web.id}`);

try {
  await containers.get(scope, web.id);
} catch (error) {
  if (!isError(error, "NotFound")) throw error;
  say(`gone: ${error.message}`);
}
