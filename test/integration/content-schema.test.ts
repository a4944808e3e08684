/** The same content and images by containerd and by bunkerd leave the same buckets, keys and values, byte for byte but for the times. */
import { expect, test } from "bun:test";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { databaseLines } from "../support/bucket-lines.ts";
import { digestOf } from "../support/content-suite.ts";
import { type Daemon, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";

const { STAT, WRITE, COMMIT } = WriteAction;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

type Request = {
  action: WriteAction;
  ref: string;
  data?: Uint8Array;
  expected?: string;
  labels?: Record<string, string>;
};

async function change(connection: Connection): Promise<void> {
  const content = connection.client(Content);
  const images = connection.client(Images);
  const [schema, leased, other] = [
    inNamespace("schema"),
    inNamespace("schema", { "containerd-lease": "l" }),
    inNamespace("other"),
  ];
  const write = async (request: Request, options = schema) => {
    async function* send() {
      yield request;
    }
    await Array.fromAsync(content.write(send(), options));
  };
  await connection.client(Leases).create({ id: "l" }, schema);
  await write({ action: COMMIT, ref: "plain", data: bytes("plain") });
  await write({ action: COMMIT, ref: "labelled", data: bytes("labelled"), labels: { a: "b", empty: "" } });
  await write({ action: COMMIT, ref: "emptylabels", data: bytes("emptylabels"), labels: { empty: "" } });
  await write({ action: COMMIT, ref: "leased", data: bytes("leased") }, leased);
  await write({ action: WRITE, ref: "open ü", data: bytes("open") });
  await write({ action: WRITE, ref: "open leased", data: bytes("open") }, leased);
  await write({ action: STAT, ref: "shared", expected: digestOf(bytes("plain")) }, other);
  await write({ action: COMMIT, ref: "taken over", data: bytes("plain") }, other);
  await write({ action: WRITE, ref: "gone", data: bytes("gone") });
  await content.abort({ ref: "gone" }, schema);
  const info = { digest: digestOf(bytes("labelled")), labels: { c: "d" } };
  await content.update({ info, updateMask: { paths: ["labels.c", "labels.a"] } }, schema);
  const target = { mediaType: "a/b", digest: digestOf(bytes("plain")), size: 2n ** 40n };
  const annotations = { k: "v", empty: "" };
  await images.create({ image: { name: "plain", target } }, schema);
  await images.create(
    { image: { name: "full", target: { ...target, annotations }, labels: { a: "b", e: "" } } },
    schema,
  );
  await images.update(
    { image: { name: "full", target, labels: { c: "d" } }, updateMask: { paths: ["labels"] } },
    schema,
  );
  await images.create(
    { image: { name: "cleared", target: { ...target, annotations }, labels: { a: "b" } } },
    schema,
  );
  await images.update({ image: { name: "cleared", target } }, schema);
  await images.create({ image: { name: "gone", target } }, other);
  await images.delete({ name: "gone" }, other);
}

test("meta.db", async () => {
  const dumps: string[][] = [];
  for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
    await using daemon: Daemon = await startDaemon(kind, { config: WITHOUT_COLLECTION });
    {
      await using connection = connectGrpc(daemon.socket);
      await change(connection);
    }
    await daemon.halt();
    dumps.push(await databaseLines(daemon.database));
  }
  for (const dump of dumps) expect(dump.length).toBeGreaterThan(40);
  for (const dump of dumps.slice(1)) expect(dump).toEqual(dumps[0] ?? []);
});
