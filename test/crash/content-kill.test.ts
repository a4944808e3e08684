/** kill -9 at the points of a commit between which the blob store and the database differ. */
import { describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { ctr } from "../support/commands.ts";
import {
  COLLECTION_WHEN_ASKED,
  type Daemon,
  daemonKinds,
  startDaemon,
  WITHOUT_COLLECTION,
} from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { type PlainContent, servePlainContent } from "../support/plain-content.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

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

describe.if(isOurs)("content of another process, killed before the record of a blob", () => {
  const data = new Uint8Array(randomBytes(300_000));
  const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;

  /** A daemon on the content behind `address` that is killed so, and one that comes after it. */
  async function killed(folder: string, address: string): Promise<Daemon> {
    const proxy = `[proxy_plugins.far]\ntype = "content"\naddress = "${address}"`;
    const disabledPlugins = ["io.containerd.content.v1.content"];
    const options = { folder, config: `${COLLECTION_WHEN_ASKED}\n${proxy}`, disabledPlugins };
    process.env["BUNKERD_FAILPOINTS"] = "content.beforeRecord=kill";
    const first = await startDaemon("bunkerd", options);
    delete process.env["BUNKERD_FAILPOINTS"];
    const dying = connectGrpc(first.socket);
    await expect(commit(dying, data, digest)).rejects.toThrow();
    await first.exited;
    dying.close();
    return await startDaemon("bunkerd", options);
  }

  test("a plain store: the first collection removes it, and the upload can be made again", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "plain.sock");
    const plain: PlainContent = await servePlainContent(path, join(folder, "plain"));
    try {
      await using daemon = await killed(join(folder, "daemon"), path);
      expect(await plain.digests()).toEqual([digest]);
      expect((await ctr("2.1", daemon, "content", "prune", "references")).code).toBe(0);
      expect(await plain.digests()).toEqual([]);
      await using connection = connectGrpc(daemon.socket);
      await commit(connection, data, digest);
      expect(await plain.digests()).toEqual([digest]);
    } finally {
      await plain.close();
      removeFolder(folder);
    }
  });

  test("a store with namespaces: it is nobody's there but the namespace's, and the upload finds it", async () => {
    await using far = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
    await using there = connectGrpc(far.socket);
    const folder = temporaryFolder();
    await using daemon = await killed(folder, far.socket);
    const listed = async (): Promise<string[]> => {
      const answers = await Array.fromAsync(there.client(Content).list({}, options));
      return answers.flatMap(({ info }) => info).map((info) => info.digest);
    };
    expect((await ctr("2.1", daemon, "content", "prune", "references")).code).toBe(0);
    expect(await listed()).toEqual([digest]);
    await using connection = connectGrpc(daemon.socket);
    await commit(connection, data, digest);
    const read = await Array.fromAsync(connection.client(Content).read({ digest }, options));
    expect(Buffer.compare(Buffer.concat(read.map((part) => part.data)), data)).toBe(0);
    expect((await ctr("2.1", daemon, "content", "prune", "references")).code).toBe(0);
    expect(await listed()).toEqual([]);
  });
});
