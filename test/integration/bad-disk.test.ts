/**
 * A database that is broken, foreign or taken, a root that cannot be written, a disk that is full: bunkerd says what and
 * where, changes nothing that it did not write, and goes on where it can.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Code } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import { DATABASE, type Daemon, launchDaemon, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";
import { output, removeFolder, temporaryFolder } from "../support/processes.ts";
import { containerOf } from "../support/workload.ts";

const PAGE_BYTES = 4096;
let folder: string;
let sample: string;

/** A database with 200 containers in it. */
beforeAll(async () => {
  folder = temporaryFolder();
  sample = join(folder, "sample.db");
  await using daemon = await startDaemon("bunkerd");
  await fill(daemon, "default", 200, 3000);
  expect(await daemon.halt()).toBe(0);
  copyFileSync(daemon.database, sample);
});

afterAll(() => removeFolder(folder));

async function fill(daemon: Daemon, namespace: string, count: number, sizeBytes: number): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const containers = connection.client(Containers);
  for (let n = 0; n < count; n++) {
    await containers.create({ container: containerOf(`c${n}`, sizeBytes) }, inNamespace(namespace));
  }
}

/** A root whose database is the sample, changed. */
function rootWith(change: (file: string) => void): { root: string; file: string } {
  const root = join(folder, `root-${Bun.randomUUIDv7()}`);
  const file = join(root, DATABASE);
  mkdirSync(dirname(file), { recursive: true });
  copyFileSync(sample, file);
  change(file);
  return { root, file };
}

function patch(file: string, offset: number, bytes: Uint8Array): void {
  const content = readFileSync(file);
  content.set(bytes, offset);
  writeFileSync(file, content);
}

/** Both metas begin after the 16 bytes of their page's header: magic, version, page size (bbolt `common/meta.go`). */
function patchMetas(file: string, offset: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  for (const page of [0, 1]) patch(file, page * PAGE_BYTES + 16 + offset, bytes);
}

const BROKEN: Readonly<Record<string, (file: string) => void>> = {
  "cut to 100 bytes": (file) => truncateSync(file, 100),
  "cut behind its metas": (file) => truncateSync(file, 2 * PAGE_BYTES),
  "cut in half": (file) => truncateSync(file, Math.floor(statSync(file).size / 2 / PAGE_BYTES) * PAGE_BYTES),
  "zeroed throughout": (file) => writeFileSync(file, new Uint8Array(statSync(file).size)),
  "zeroed in both metas": (file) => patch(file, 0, new Uint8Array(2 * PAGE_BYTES)),
  text: (file) => writeFileSync(file, "this is no database\n".repeat(1000)),
  "of another version": (file) => patchMetas(file, 4, 3),
  "of another magic": (file) => patchMetas(file, 0, 0xdeadbeef),
};

describe("a database that is", () => {
  test.each(Object.entries(BROKEN))("%s: named and left as it is", async (_name, change) => {
    const { root, file } = rootWith(change);
    const before = readFileSync(file);
    await using daemon = await launchDaemon("bunkerd", { root });
    expect(await daemon.exited).not.toBe(0);
    const lines = daemon
      .log()
      .split("\n")
      .filter((line) => /level=(error|fatal)|^bunkerd:/.test(line));
    expect(lines, daemon.log()).toHaveLength(1);
    expect(lines[0]).toContain(file);
    expect(lines[0]).not.toMatch(/\bat .*\.ts:\d+/);
    expect(readFileSync(file).equals(before)).toBe(true);
    const checked = await checkDatabase(file);
    expect(checked.code).not.toBe(0);
    expect(checked.stdout + checked.stderr).not.toBe("");
  });

  test("empty: begun anew, as bbolt does", async () => {
    const { root } = rootWith((file) => truncateSync(file, 0));
    await using daemon = await startDaemon("bunkerd", { root });
    await fill(daemon, "default", 1, 10);
  });

  test("torn in its newest meta: the older one serves", async () => {
    const { root, file } = rootWith((file) => {
      const metas = [0, 1].map((page) => readFileSync(file).readBigUInt64LE(page * PAGE_BYTES + 16 + 48));
      const newest = (metas[1] ?? 0n) > (metas[0] ?? 0n) ? 1 : 0;
      patch(file, newest * PAGE_BYTES + 16 + 16, new Uint8Array(16).fill(7));
    });
    await using daemon = await startDaemon("bunkerd", { root });
    await using connection = connectGrpc(daemon.socket);
    const { containers } = await connection.client(Containers).list({}, inNamespace("default"));
    expect(containers.length).toBeGreaterThanOrEqual(199);
    expect(await daemon.halt()).toBe(0);
    expect(await checkDatabase(file)).toMatchObject({ code: 0 });
  });

  test("damaged in a page: that is DataLoss, and the rest goes on", async () => {
    const { root, file } = rootWith((file) => {
      // A page that is all of one container's spec, well inside the tree.
      const content = readFileSync(file);
      const at = content.indexOf(Buffer.from("c100"));
      patch(file, Math.floor(at / PAGE_BYTES) * PAGE_BYTES, new Uint8Array(PAGE_BYTES).fill(0xee));
    });
    await using daemon = await startDaemon("bunkerd", { root });
    await using connection = connectGrpc(daemon.socket);
    const containers = connection.client(Containers);
    const lost = await errorOf(containers.list({}, inNamespace("default")));
    expect(lost.code).toBe(Code.DataLoss);
    expect(lost.message).toContain(file);
    expect(lost.message).toMatch(/page \d+/);
    await connection.client(Version).version({});
    expect((await containers.list({}, inNamespace("elsewhere"))).containers).toEqual([]);
    await containers.create({ container: containerOf("new") }, inNamespace("elsewhere"));
    expect((await containers.list({}, inNamespace("elsewhere"))).containers).toHaveLength(1);
    expect((await checkDatabase(file)).code).not.toBe(0);
  });

  test.each(["bunkerd", "containerd-2.1"] as const)(
    "taken by %s: one line names the lock and its owner",
    async (owner) => {
      const { root, file } = rootWith(() => undefined);
      await using first = await startDaemon(owner, { root });
      await using second = await launchDaemon("bunkerd", { root });
      expect(await second.exited).not.toBe(0);
      const lines = second
        .log()
        .split("\n")
        .filter((line) => line.includes(file));
      expect(lines, second.log()).toHaveLength(1);
      expect(lines[0]).toContain(`${first.pid}`);
      await using connection = connectGrpc(first.socket);
      expect((await connection.client(Containers).list({}, inNamespace("default"))).containers).toHaveLength(
        200,
      );
    },
  );

  test("of another page size: served as bbolt serves it", async () => {
    const { root, file } = rootWith((file) => rmSync(file));
    // bbolt takes the page size of the file; an 8 KiB one comes from a machine with such pages.
    patchedPageSize(file, 8192);
    await using daemon = await startDaemon("bunkerd", { root });
    await fill(daemon, "default", 20, 3000);
    expect(await daemon.halt()).toBe(0);
    expect(await checkDatabase(file)).toMatchObject({ code: 0 });
    expect(readFileSync(file).readUInt32LE(16 + 8)).toBe(8192);
  });
});

/** An empty database of that page size: two metas, a freelist, a leaf (bbolt `db.go`, init). */
function patchedPageSize(file: string, pageSize: number): void {
  const content = Buffer.alloc(4 * pageSize);
  for (const page of [0, 1]) {
    const at = page * pageSize;
    content.writeBigUInt64LE(BigInt(page), at);
    content.writeUInt16LE(0x04, at + 8);
    const meta = at + 16;
    content.writeUInt32LE(0xed0cdaed, meta);
    content.writeUInt32LE(2, meta + 4);
    content.writeUInt32LE(pageSize, meta + 8);
    content.writeBigUInt64LE(3n, meta + 16);
    content.writeBigUInt64LE(2n, meta + 32);
    content.writeBigUInt64LE(4n, meta + 40);
    content.writeBigUInt64LE(BigInt(page), meta + 48);
    content.writeBigUInt64LE(fnv64a(content.subarray(meta, meta + 56)), meta + 56);
  }
  content.writeBigUInt64LE(2n, 2 * pageSize);
  content.writeUInt16LE(0x10, 2 * pageSize + 8);
  content.writeBigUInt64LE(3n, 3 * pageSize);
  content.writeUInt16LE(0x02, 3 * pageSize + 8);
  writeFileSync(file, content);
}

function fnv64a(bytes: Uint8Array): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

/** A mount that is gone when the test is. */
async function mounted(arguments_: readonly string[]): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(folder, `mount-${Bun.randomUUIDv7()}`);
  mkdirSync(path);
  await output(["mount", ...arguments_, path]);
  const unmount = (): void => void Bun.spawnSync(["umount", "--lazy", path]);
  process.once("exit", unmount);
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      process.off("exit", unmount);
      unmount();
    },
  };
}

describe("a disk that is", () => {
  test("read-only: bunkerd does not start and names the path", async () => {
    await using mount = await mounted(["-t", "tmpfs", "-o", "size=4m,ro", "tmpfs"]);
    const root = join(mount.path, "root");
    await using daemon = await launchDaemon("bunkerd", { root });
    expect(await daemon.exited).not.toBe(0);
    expect(daemon.log()).toContain(mount.path);
    expect(daemon.log()).toMatch(/read-only file system|EROFS/i);
  });

  test("full: writes fail and say so, reads go on, and so do writes when there is room again", async () => {
    await using mount = await mounted(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
    const root = join(mount.path, "root");
    await using daemon = await startDaemon("bunkerd", { root });
    await using connection = connectGrpc(daemon.socket);
    const containers = connection.client(Containers);
    const options = inNamespace("full");
    const stored: string[] = [];
    const create = async (id: string): Promise<void> => {
      await containers.create({ container: containerOf(id, 60_000) }, options);
      stored.push(id);
    };
    const refused = await errorOf(
      (async () => {
        for (let n = 0; n < 500; n++) await create(`c${n}`);
      })(),
    );
    expect(stored.length).toBeGreaterThan(5);
    expect(refused.code).toBe(Code.ResourceExhausted);
    expect(refused.message).toMatch(/no space left on device/);
    expect(refused.message).toContain("meta.db");

    const listed = async (): Promise<string[]> =>
      (await containers.list({}, options)).containers.map(({ id }) => id).sort();
    expect(await listed()).toEqual([...stored].sort());
    await output(["mount", "-o", "remount,size=24m", mount.path]);
    await create("more");
    expect(await listed()).toEqual([...stored].sort());
    expect(await daemon.halt()).toBe(0);
    expect(await checkDatabase(daemon.database)).toMatchObject({ code: 0 });
    await using again = await startDaemon("bunkerd", { root });
    await using reconnection = connectGrpc(again.socket);
    const found = await reconnection.client(Containers).list({}, options);
    expect(found.containers.map(({ id }) => id).sort()).toEqual([...stored].sort());
  });
});
