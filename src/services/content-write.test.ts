import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  WriteAction,
  type WriteContentRequest,
  WriteContentRequestSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { codeOf } from "../../test/support/content-suite.ts";
import { type TestMetadata, temporaryMetadata } from "../../test/support/metadata.ts";
import { writeContent } from "./content-write.ts";

const MIB = 1 << 20;
/** More than what is written without a thread, and some messages that overlap. */
const MESSAGES = 10;
const blob = Buffer.alloc(MESSAGES * MIB);
for (let at = 0; at < blob.length; at += 4) blob.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at);
const sumOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const endOf = (index: number): object => ({
  action: WriteAction.WRITE,
  offset: BigInt((index + 1) * MIB),
  digest: sumOf(blob.subarray(0, (index + 1) * MIB)),
});

let metadata: TestMetadata;
beforeEach(async () => {
  metadata = await temporaryMetadata();
});
afterEach(async () => metadata.close());

/** In shared memory, as the transport has them. */
function piece(index: number, offset = index * MIB): WriteContentRequest {
  const data = new Uint8Array(new SharedArrayBuffer(MIB));
  data.set(blob.subarray(index * MIB, (index + 1) * MIB));
  const request = create(WriteContentRequestSchema, {
    action: WriteAction.WRITE,
    ref: "r",
    offset: BigInt(offset),
  });
  return Object.assign(request, { data });
}

const write = (requests: AsyncIterable<WriteContentRequest>) =>
  writeContent(metadata.content, () => ({ namespace: "default" }), requests);

test("requests that come at once are answered one by one, in their order", async () => {
  const total = BigInt(blob.length);
  const action = WriteAction.COMMIT;
  async function* requests() {
    for (let index = 0; index < MESSAGES; index++) yield piece(index);
    yield create(WriteContentRequestSchema, { action, offset: total, total, expected: sumOf(blob) });
  }
  const answers = await Array.fromAsync(write(requests()));
  const committed = { action, offset: total, digest: sumOf(blob) };
  const wanted = [...Array.from({ length: MESSAGES }, (_, index) => endOf(index)), committed, committed];
  expect(answers).toMatchObject(wanted);
  expect(answers.length).toBe(wanted.length);
});

test("a client that waits for each answer has it before it goes on", async () => {
  let answered = Promise.withResolvers<void>();
  async function* requests() {
    for (let index = 0; index < MESSAGES; index++) {
      yield piece(index);
      await answered.promise;
      answered = Promise.withResolvers<void>();
    }
  }
  let index = 0;
  for await (const answer of write(requests())) {
    expect(answer).toMatchObject(endOf(Math.min(index, MESSAGES - 1)));
    index += 1;
    answered.resolve();
  }
  expect(index).toBe(MESSAGES + 1);
});

test("what is wrong is told behind the answers to what came before, and the ingest can be resumed there", async () => {
  async function* requests() {
    for (let index = 0; index < MESSAGES; index++) yield piece(index);
    yield piece(0, 5);
  }
  const answers: object[] = [];
  const take = async (): Promise<void> => {
    for await (const answer of write(requests())) answers.push(answer);
  };
  expect(await codeOf(take())).toBe("OutOfRange");
  expect(answers).toMatchObject(Array.from({ length: MESSAGES }, (_, index) => endOf(index)));
  const status = await metadata.content.status({ namespace: "default" }, "r");
  expect(status.offset).toBe(BigInt(blob.length));
});

test("a client that goes leaves what it sent, of which nothing is written any more when the ingest is free", async () => {
  async function* requests() {
    for (let index = 0; index < MESSAGES; index++) yield piece(index);
    throw new Error("gone");
  }
  const answers = write(requests());
  await expect(Array.fromAsync(answers)).rejects.toThrow("gone");
  const writer = await metadata.content.writer({ namespace: "default" }, { ref: "r" });
  const { offset } = writer.status();
  expect(writer.digest()).toBe(sumOf(blob.subarray(0, Number(offset))));
  expect(offset % BigInt(MIB)).toBe(0n);
  await writer.close();
});
