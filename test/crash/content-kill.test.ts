/** kill -9 at the points of a commit between which the blob store and the database differ. */
import { expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { daemonKinds, startDaemon, WITHOUT_COLLECTION } from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { temporaryFolder } from "../support/processes.ts";

const options = inNamespace("default");

async function commit(connection: Connection, data: Uint8Array, expected: string): Promise<void> {
  async function* send() {
    yield { action: WriteAction.COMMIT, ref: "r", data, expected };
  }
  await Array.fromAsync(connection.client(Content).write(send(), options));
}

const isOurs = daemonKinds("bunkerd").length === 1;

test.if(isOurs).each(["content.beforeRename", "content.afterRename", "content.beforeRecord"])(
  "%s: the blob is whole or not there, and the upload can be made again",
  async (failpoint) => {
    const folder = temporaryFolder();
    const data = new Uint8Array(randomBytes(300_000));
    const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
    process.env["BUNKERD_FAILPOINTS"] = `${failpoint}=kill`;
    const first = await startDaemon("bunkerd", { folder, config: WITHOUT_COLLECTION });
    delete process.env["BUNKERD_FAILPOINTS"];
    const dying = connectGrpc(first.socket);
    await expect(commit(dying, data, digest)).rejects.toThrow();
    expect(await first.exited).not.toBe(0);
    dying.close();

    await using second = await startDaemon("bunkerd", { folder, config: WITHOUT_COLLECTION });
    await using connection = connectGrpc(second.socket);
    const content = connection.client(Content);
    const info = await content.info({ digest }, options).catch((error: unknown) => error);
    expect(info).toBeInstanceOf(ConnectError);
    expect((info as ConnectError).code).toBe(Code.NotFound);
    await commit(connection, data, digest);
    const read = await Array.fromAsync(content.read({ digest }, options));
    expect(Buffer.compare(Buffer.concat(read.map((part) => part.data)), data)).toBe(0);
    expect((await content.listStatuses({}, options)).statuses).toEqual([]);
    expect(readdirSync(join(second.root, "io.containerd.content.v1.content/ingest"))).toEqual([]);
  },
);
