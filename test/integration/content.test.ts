/** Content through a real daemon: hand-over to containerd and back, clients that vanish, a disk that is full, a daemon that is killed. */
import { expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Code, type ConnectError } from "@connectrpc/connect";
import {
  Content,
  WriteAction,
  type WriteContentResponse,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { callJson } from "../support/commands.ts";
import { type DaemonKind, daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { output, run, temporaryFolder } from "../support/processes.ts";

const { STAT, WRITE, COMMIT } = WriteAction;
const options = inNamespace("default");
const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

type Request = {
  action: WriteAction;
  ref?: string;
  offset?: bigint;
  data?: Uint8Array;
  total?: bigint;
  expected?: string;
};

async function write(connection: Connection, ...requests: Request[]): Promise<WriteContentResponse[]> {
  async function* send() {
    yield* requests;
  }
  return Array.fromAsync(connection.client(Content).write(send(), options));
}

async function read(connection: Connection, digest: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const { data } of connection.client(Content).read({ digest }, options)) chunks.push(data);
  return Buffer.concat(chunks);
}

const failureOf = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => new Error("did not fail"),
    (reason: ConnectError) => reason,
  );
  return error instanceof Error && "code" in error ? Code[error.code as Code] : String(error);
};

/** Asks until the ingest is there with that size: what a writer leaves is written when the daemon learns that it is gone. */
async function untilOffset(connection: Connection, ref: string, offset: bigint): Promise<void> {
  for (;;) {
    const { status } = await connection.client(Content).status({ ref }, options);
    if (status?.offset === offset) return;
  }
}

/** Asks until nobody holds the ref. */
async function untilFree(connection: Connection, ref: string): Promise<WriteContentResponse[]> {
  for (;;) {
    try {
      return await write(connection, { action: STAT, ref });
    } catch (error) {
      if ((error as ConnectError).code !== Code.Unavailable) throw error;
    }
  }
}

const HANDOVERS: readonly (readonly [DaemonKind, DaemonKind])[] = [
  ["containerd-2.1", "bunkerd"],
  ["bunkerd", "containerd-2.1"],
];

for (const [first, second] of HANDOVERS) {
  const isWanted = daemonKinds(first, second).length === 2;
  if (!isWanted) process.stdout.write(`skipped: ${first} to ${second}: BUNKERD_TEST_DAEMONS\n`);
  test.if(isWanted)(`content, ingests and images of ${first} are ${second}'s`, async () => {
    const blob = randomBytes(3_000_000);
    const half = randomBytes(200_000);
    const target = { mediaType: "a/b", digest: digestOf(blob), size: 3_000_000n, annotations: { k: "v" } };
    const folder = temporaryFolder();
    const before = await startDaemon(first, { folder, config: WITHOUT_COLLECTION });
    {
      await using connection = connectGrpc(before.socket);
      await write(connection, { action: COMMIT, ref: "blob", data: blob, total: 3_000_000n });
      await write(connection, {
        action: WRITE,
        ref: "half",
        data: half.subarray(0, 100_000),
        total: 200_000n,
      });
      await connection.client(Images).create({ image: { name: "i", target, labels: { a: "b" } } }, options);
    }
    await before.halt();
    await using after = await startDaemon(second, { folder, config: WITHOUT_COLLECTION });
    await using connection = connectGrpc(after.socket);
    expect(Buffer.compare(await read(connection, digestOf(blob)), blob)).toBe(0);
    const { image } = await connection.client(Images).get({ name: "i" }, options);
    expect(image).toMatchObject({ name: "i", target, labels: { a: "b" } });
    const { statuses } = await connection.client(Content).listStatuses({}, options);
    expect(statuses).toMatchObject([{ ref: "half", offset: 100_000n, total: 200_000n }]);
    const commit = { action: COMMIT, ref: "half", offset: 100_000n, data: half.subarray(100_000) };
    await write(connection, { ...commit, total: 200_000n, expected: digestOf(half) });
    expect(Buffer.compare(await read(connection, digestOf(half)), half)).toBe(0);
    expect(readdirSync(join(after.root, "io.containerd.content.v1.content/ingest"))).toEqual([]);
  });
}

const isOurs = daemonKinds("bunkerd").length === 1;

test.if(isOurs)("a client that vanishes mid-write leaves an ingest that another resumes", async () => {
  await using daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  await using observer = connectGrpc(daemon.socket);
  const vanishing = connectGrpc(daemon.socket);
  const never = Promise.withResolvers<void>();
  async function* send() {
    yield { action: WRITE, ref: "r", data: new Uint8Array(100_000).fill(1) };
    await never.promise;
  }
  const answers = vanishing.client(Content).write(send(), options)[Symbol.asyncIterator]();
  expect((await answers.next()).value).toMatchObject({ offset: 100_000n });
  expect(await failureOf(write(observer, { action: STAT, ref: "r" }))).toBe("Unavailable");
  vanishing.close();
  never.resolve();
  await answers.next().catch(() => undefined);
  expect((await untilFree(observer, "r"))[0]).toMatchObject({ offset: 100_000n });
  const data = new Uint8Array(100_000).fill(2);
  await write(observer, { action: COMMIT, ref: "r", offset: 100_000n, data });
  const whole = Buffer.concat([new Uint8Array(100_000).fill(1), data]);
  expect(Buffer.compare(await read(observer, digestOf(whole)), whole)).toBe(0);
});

test.if(isOurs)("kill -9 mid-write: the ingest is there after the start, and can be committed", async () => {
  const folder = temporaryFolder();
  const first = await startDaemon("bunkerd", { folder, config: WITHOUT_COLLECTION });
  const connection = connectGrpc(first.socket);
  const never = Promise.withResolvers<void>();
  async function* send() {
    yield { action: WRITE, ref: "r", data: new Uint8Array(100_000).fill(1) };
    await never.promise;
  }
  const answers = connection.client(Content).write(send(), options)[Symbol.asyncIterator]();
  await answers.next();
  await first.kill();
  connection.close();
  never.resolve();
  await answers.next().catch(() => undefined);
  await using second = await startDaemon("bunkerd", { folder, config: WITHOUT_COLLECTION });
  await using again = connectGrpc(second.socket);
  await untilOffset(again, "r", 100_000n);
  const expected = digestOf(new Uint8Array(100_000).fill(1));
  await write(again, { action: COMMIT, ref: "r", offset: 100_000n, total: 100_000n, expected });
  expect(await read(again, expected)).toHaveLength(100_000);
});

test.if(isOurs)(
  "a full disk ends the upload with ResourceExhausted, keeps the ingest, and the daemon goes on",
  async () => {
    const folder = temporaryFolder();
    const root = join(folder, "root");
    const content = join(root, "io.containerd.content.v1.content");
    mkdirSync(content, { recursive: true });
    await output(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", content]);
    const daemon = await startDaemon("bunkerd", { folder, config: WITHOUT_COLLECTION });
    const connection = connectGrpc(daemon.socket);
    try {
      const piece = new Uint8Array(600_000).fill(1);
      await write(connection, { action: WRITE, ref: "r", data: piece });
      const tooMuch = write(connection, { action: WRITE, ref: "r", offset: 600_000n, data: piece });
      expect(await failureOf(tooMuch)).toBe("ResourceExhausted");
      const { status } = await connection.client(Content).status({ ref: "r" }, options);
      expect(Number(status?.offset)).toBeGreaterThanOrEqual(600_000);
      await output(["mount", "-o", "remount,size=4m", content]);
      const at = status?.offset ?? 0n;
      const whole = new Uint8Array(1_200_000).fill(1);
      const rest = whole.subarray(Number(at));
      await write(connection, {
        action: COMMIT,
        ref: "r",
        offset: at,
        data: rest,
        expected: digestOf(whole),
      });
      expect(await read(connection, digestOf(whole))).toHaveLength(1_200_000);
    } finally {
      connection.close();
      await daemon.kill();
      await run(["umount", content]);
      await daemon.stop();
    }
  },
);

test.if(isOurs)("content is JSON over HTTP as well", async () => {
  await using daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
  await using connection = connectGrpc(daemon.socket);
  const hello = new TextEncoder().encode("hello");
  await write(connection, { action: COMMIT, ref: "r", data: hello });
  const info = await callJson(
    daemon,
    "containerd.services.content.v1.Content/Info",
    { digest: digestOf(hello) },
    { namespace: "default" },
  );
  expect(JSON.parse(info.body)).toMatchObject({ info: { digest: digestOf(hello), size: "5" } });
});
