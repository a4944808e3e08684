/** Progress of transfers, message by message: the same steps of the same blobs by containerd 2.1 and by bunkerd. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { StreamInitSchema, Streaming } from "#gen/containerd/services/streaming/v1/streaming_pb.ts";
import { Transfer } from "#gen/containerd/services/transfer/v1/transfer_pb.ts";
import { ImageStoreSchema } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import { ProgressSchema } from "#gen/containerd/types/transfer/progress_pb.ts";
import { OCIRegistrySchema } from "#gen/containerd/types/transfer/registry_pb.ts";
import { Layout } from "../support/archives.ts";
import { ctr } from "../support/commands.ts";
import { type Daemon, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type Registry, startRegistry } from "../support/registry.ts";
import { tar } from "../support/tar.ts";

const NAME = "example.org/multi:1";
const options = inNamespace("default");
const folder = temporaryFolder();
let registry: Registry;

beforeAll(async () => {
  registry = await startRegistry(join(folder, "registry"), await freePort());
  const multi = new Layout();
  const layer = (name: string): Buffer => tar([{ name, data: name }]);
  const index = multi.index({
    amd64: multi.image([layer("a"), layer("b")], "amd64"),
    arm64: multi.image([layer("c"), layer("d")], "arm64"),
  });
  const annotations = { "io.containerd.image.name": NAME };
  writeFileSync(join(folder, "multi.tar"), multi.archive([{ ...index, annotations }]));
});
afterAll(async () => {
  await registry.stop();
  removeFolder(folder);
});

function pack<S extends DescMessage>(schema: S, message: MessageInitShape<S>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, create(schema, message)) });
}

/** Runs a transfer and answers the steps that it told of, but for those that depend on the moment. */
async function stepsOf(connection: Connection, source: Any, destination: Any): Promise<string[]> {
  const over = Promise.withResolvers<void>();
  async function* requests() {
    yield pack(StreamInitSchema, { id: "progress" });
    await over.promise;
  }
  const steps: string[] = [];
  let transfer: Promise<unknown> | undefined;
  for await (const { typeUrl, value } of connection.client(Streaming).stream(requests(), options)) {
    transfer ??= connection
      .client(Transfer)
      .transfer({ source, destination, options: { progressStream: "progress" } }, options)
      .finally(() => over.resolve());
    if (typeUrl !== ProgressSchema.typeName) continue;
    const { event, name, parents, progress, total, desc } = fromBinary(ProgressSchema, value);
    if (/^(down|up)loading$/.test(event)) continue;
    // The newest containerd tells of the image here as well, 2.1 does not.
    const isNewer = event === "saved" || event === "fetching image content";
    const what = isNewer ? "" : `${desc?.mediaType} ${desc?.digest} ${desc?.size}`;
    steps.push(`${event} ${name} [${parents.toSorted()}] ${progress}/${total} ${what}`);
  }
  await transfer;
  return steps;
}

/** The order of blobs is the moment's; that of the rest is not. */
function ordered(steps: readonly string[]): { readonly whole: string[]; readonly blobs: string[] } {
  const isBlob = (step: string): boolean => /^(?:waiting|complete|already exists) /.test(step);
  return { whole: steps.filter((step) => !isBlob(step)), blobs: steps.filter(isBlob).sort() };
}

test("pull, pull again, push, push again", async () => {
  const all: ReturnType<typeof ordered>[][] = [];
  for (const [at, kind] of daemonKinds("containerd-2.1", "bunkerd").entries()) {
    await using daemon: Daemon = await startDaemon(kind, { config: WITHOUT_COLLECTION });
    expect(
      (await ctr("2.1", daemon, "images", "import", "--all-platforms", join(folder, "multi.tar"))).code,
    ).toBe(0);
    await using connection = connectGrpc(daemon.socket);
    const reference = `${registry.host}/library/multi${at}:1`;
    const remote = pack(OCIRegistrySchema, { reference, resolver: { defaultScheme: "http" } });
    const local = pack(ImageStoreSchema, { name: NAME });
    const steps = [await stepsOf(connection, local, remote), await stepsOf(connection, local, remote)];
    await using other: Daemon = await startDaemon(kind, { config: WITHOUT_COLLECTION });
    await using fresh = connectGrpc(other.socket);
    const pulled = pack(ImageStoreSchema, {
      name: reference,
      platforms: [{ os: "linux", architecture: "amd64" }],
      unpacks: [{ platform: { os: "linux", architecture: "amd64" } }],
      allMetadata: true,
    });
    steps.push(await stepsOf(fresh, remote, pulled), await stepsOf(fresh, remote, pulled));
    all.push(steps.map((one) => ordered(one.map((step) => step.replaceAll(reference, "<reference>")))));
  }
  for (const { whole, blobs } of all.flat()) {
    expect(whole.length).toBeGreaterThan(2);
    expect(blobs.length).toBeGreaterThan(4);
  }
  for (const other of all.slice(1)) expect(other).toEqual(all[0] ?? []);
}, 60_000);
