/** Programs that bring layers of media types of their own to plain ones: what they are given, in chains, and how they fail, as under containerd. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Diff } from "#gen/containerd/services/diff/v1/diff_pb.ts";
import { Client } from "../../src/client/client.ts";
import { type Daemon, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { digestOf, tar } from "../support/tar.ts";

const folder = temporaryFolder();
const LAYER = "application/vnd.oci.image.layer.v1.tar";
const options = inNamespace("processors");
// Larger than what pipes and messages hold, so that it is not all in the program at once.
const filling = Buffer.alloc(3 << 20, "0123456789abcdef");
const layer = tar([
  { name: "decoded", data: "text\n" },
  { name: "large", data: filling },
]);
const base64 = (bytes: Uint8Array): Buffer => Buffer.from(Buffer.from(bytes).toString("base64"));

function program(name: string, script: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

function processor(id: string, accepts: string, returns: string, path: string): string {
  return [
    `[stream_processors."${id}"]`,
    `accepts = ["${accepts}"]`,
    `returns = "${returns}"`,
    `path = "${path}"`,
    'args = ["-d"]',
    `env = ["NOTES=${folder}"]`,
  ].join("\n");
}

const config = (): string =>
  [
    WITHOUT_COLLECTION,
    processor("outer", "test/outer", "test/inner", "base64"),
    processor(
      "inner",
      "test/inner",
      `${LAYER}+gzip`,
      program("inner", 'echo "$@ $STREAM_PROCESSOR_MEDIATYPE" > $NOTES/told; exec base64 "$@"'),
    ),
    processor("key", "test/key", LAYER, program("key", "cat <&3 > $NOTES/payload; cat")),
    processor("fails", "test/fails", LAYER, program("fails", "echo no key for this >&2; exit 3")),
    processor("missing", "test/missing", LAYER, "bunkerd-test-nothing"),
    processor("plain", "test/gone", "test/nobody", "cat"),
  ].join("\n");

afterAll(() => removeFolder(folder));

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await startDaemon(kind, { config: config() });
  });
  afterAll(() => daemon.stop());

  async function put(bytes: Uint8Array): Promise<string> {
    using client = new Client(daemon.socket);
    const digest = digestOf(bytes);
    const scope = { namespace: "processors" };
    const known = await client.content().list(scope, [`digest==${digest}`]);
    if (known.length > 0) return digest;
    const writer = await client.content().writer(scope, { ref: digest, totalBytes: BigInt(bytes.length) });
    await writer.write(bytes);
    await writer.commit({ expected: digest });
    return digest;
  }

  const payload = create(AnySchema, { typeUrl: "test/payload", value: Buffer.from("secret") });

  async function apply(bytes: Uint8Array, mediaType: string, into: string) {
    const target = join(daemon.folder, into);
    mkdirSync(target);
    const digest = await put(bytes);
    await using connection = connectGrpc(daemon.socket);
    const request = {
      diff: { mediaType, digest, size: BigInt(bytes.length) },
      mounts: [{ type: "bind", source: target, options: ["rbind", "rw"] }],
      payloads: { key: payload },
    };
    const { applied } = await connection.client(Diff).apply(request, options);
    expect(readFileSync(join(target, "decoded"), "utf8")).toBe("text\n");
    expect(readFileSync(join(target, "large")).equals(filling)).toBe(true);
    return applied;
  }

  const expected = { mediaType: LAYER, digest: digestOf(layer), size: BigInt(layer.length) };

  test("one after another, until what comes out is a layer that is built in", async () => {
    expect(await apply(base64(base64(gzipSync(layer))), "test/outer", "chain")).toMatchObject(expected);
    expect(readFileSync(join(folder, "told"), "utf8")).toBe("-d test/inner\n");
  });

  test("a payload is read from descriptor 3", async () => {
    expect(await apply(layer, "test/key", "payload")).toMatchObject(expected);
    expect(new Uint8Array(readFileSync(join(folder, "payload")))).toEqual(toBinary(AnySchema, payload));
  });

  test("what is built in goes on, and failures say what the program said", async () => {
    expect(await apply(gzipSync(layer), `${LAYER}+gzip`, "builtin")).toMatchObject(expected);
    const failed = async (mediaType: string) =>
      (await errorOf(apply(layer, mediaType, mediaType.slice(5)))).message;
    // containerd takes what a program wrote before it failed for the layer.
    if (kind === "bunkerd") expect(await failed("test/fails")).toBe("no key for this\n");
    expect(await failed("test/missing")).toMatch(
      /exec: "bunkerd-test-nothing": executable file not found in \$PATH/,
    );
    expect(await failed("test/gone")).toContain("no processor for media-type");
  });
});
