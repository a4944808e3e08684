import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, type ConnectError, createHandlerContext } from "@connectrpc/connect";
import {
  Content,
  ReadContentRequestSchema,
  ReadContentResponseSchema,
  WriteAction,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { inProcessClient, scoped } from "../../test/support/in-process.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { openFiles } from "../../test/support/open-files.ts";
import type { FramedMessage } from "../transport/grpc/framed-message.ts";
import { contentService } from "./content.ts";

const options = scoped("default");
const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const { STAT, WRITE, COMMIT } = WriteAction;

let metadata: TestMetadata;
let client: Client<typeof Content>;
beforeEach(async () => {
  metadata = await temporaryMetadata();
  client = inProcessClient(contentService(metadata));
});
afterEach(async () => metadata.close());

async function write(
  ...requests: { action: WriteAction; ref?: string; offset?: bigint; data?: Uint8Array }[]
) {
  async function* send() {
    yield* requests;
  }
  return Array.fromAsync(client.write(send(), options));
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: ConnectError) => Code[error.code],
  );
}

/** The messages of Read as gRPC gets them. */
function encodedRead(
  request: MessageInitShape<typeof ReadContentRequestSchema>,
): AsyncIterable<FramedMessage> {
  const context = createHandlerContext({
    service: Content,
    method: Content.method.read,
    protocolName: "grpc",
    requestMethod: "POST",
    url: "http://localhost",
    requestHeader: { "containerd-namespace": "default" },
  });
  const read = contentService(metadata).encoded?.read;
  if (read === undefined) throw new Error("Read has no encoded answers");
  return read(create(ReadContentRequestSchema, request), context) as AsyncIterable<FramedMessage>;
}

/** More than two messages of Read, and no two bytes alike that would hide a wrong order. */
const large = new Uint8Array(2_500_000).map((_, index) => (index * 31 + (index >> 8)) & 0xff);

describe("Content.Read", () => {
  test("answers in pieces that say where they belong", async () => {
    await write({ action: COMMIT, ref: "r", data: large });
    const answers = await Array.fromAsync(client.read({ digest: digestOf(large), offset: 3n }, options));
    expect(answers.map(({ offset, data }) => [offset, data.length])).toEqual([
      [0n, 1 << 20],
      [1n << 20n, 1 << 20],
      [2n << 20n, large.length - 3 - (2 << 20)],
    ]);
    expect(Buffer.compare(Buffer.concat(answers.map(({ data }) => data)), large.subarray(3))).toBe(0);
  });

  test("the encoded messages are the same", async () => {
    await write({ action: COMMIT, ref: "r", data: large });
    const encoded = await Array.fromAsync(
      encodedRead({ digest: digestOf(large), offset: 1n, size: 2_400_000n }),
    );
    const answers = encoded.map((message) => fromBinary(ReadContentResponseSchema, message.joined()));
    expect(answers.map(({ offset }) => offset)).toEqual([0n, 1n << 20n, 2n << 20n]);
    const all = Buffer.concat(answers.map(({ data }) => data));
    expect(Buffer.compare(all, large.subarray(1, 2_400_001))).toBe(0);
  });

  test("a reader that stops leaves no file open", async () => {
    await write({ action: COMMIT, ref: "r", data: large });
    const before = openFiles();
    for await (const message of encodedRead({ digest: digestOf(large) })) {
      expect(message.length).toBeGreaterThan(1 << 20);
      expect(openFiles()).toBe(before + 1);
      break;
    }
    expect(openFiles()).toBe(before);
  });
});

describe("Content.Write", () => {
  test("the session's last answer comes twice, as containerd's", async () => {
    const answers = await write({ action: STAT, ref: "r" }, { action: WRITE, data: new Uint8Array(3) });
    expect(answers.map(({ action, offset }) => [action, offset])).toEqual([
      [STAT, 0n],
      [WRITE, 3n],
      [WRITE, 3n],
    ]);
  });

  test("nothing is read behind a commit", async () => {
    const answers = await write({ action: COMMIT, ref: "r", data: large }, { action: WRITE, data: large });
    expect(answers.map(({ action }) => action)).toEqual([COMMIT, COMMIT]);
  });

  test("a session that fails lets go of its ingest", async () => {
    await write({ action: WRITE, ref: "r", data: new Uint8Array(3) });
    expect(await codeOf(write({ action: WRITE, ref: "r", offset: 9n, data: large }))).toBe("OutOfRange");
    expect((await write({ action: STAT, ref: "r" }))[0]).toMatchObject({ offset: 3n });
  });

  test("a session without a request is the caller's fault", async () => {
    expect(await codeOf(write())).toBe("InvalidArgument");
    expect(await codeOf(write({ action: STAT, ref: "" }))).toBe("InvalidArgument");
  });
});

test("a list comes in blocks of a hundred", async () => {
  for (let n = 0; n < 101; n++) await write({ action: COMMIT, ref: `r${n}`, data: Buffer.from(String(n)) });
  const blocks = await Array.fromAsync(client.list({}, options));
  expect(blocks.map(({ info }) => info.length)).toEqual([100, 1]);
});
