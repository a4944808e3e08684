/**
 * A daemon whose content is another process's (`[proxy_plugins]`), on containerd 2.1 and on bunkerd: a plain store of the test's own
 * with real blobs, and another daemon's content service.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Client } from "../../src/client/client.ts";
import { Layout } from "../support/archives.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace, until } from "../support/containers.ts";
import { contentSuite, digestOf } from "../support/content-suite.ts";
import {
  COLLECTION_WHEN_ASKED,
  type Daemon,
  type DaemonKind,
  daemonKinds,
  startDaemon,
  WITHOUT_COLLECTION,
} from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { type PlainContent, servePlainContent } from "../support/plain-content.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { tar } from "../support/tar.ts";

const folder = temporaryFolder();
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const LOCAL = "io.containerd.content.v1.content";
const bytes = new TextEncoder().encode("hello");
const hello = digestOf(bytes);

/** With the built-in content unless it is left out, and none of what containerd has outside of its folders. */
function startOn(
  kind: DaemonKind,
  addresses: readonly string[],
  without: readonly string[] = [LOCAL],
): Promise<Daemon> {
  const outside =
    kind === "bunkerd"
      ? []
      : ["grpc.v1.cri", "cri.v1.images", "cri.v1.runtime", "nri.v1.nri", "internal.v1.opt"];
  const proxies = addresses.map((address, index) => {
    return `[proxy_plugins.far${index}]\ntype = "content"\naddress = "${address}"`;
  });
  return startDaemon(kind, {
    config: [COLLECTION_WHEN_ASKED, ...proxies].join("\n"),
    disabledPlugins: [...without, ...outside.map((name) => `io.containerd.${name}`)],
  });
}

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s on a plain store", (kind) => {
  const path = join(folder, `${kind}.sock`);
  const root = join(folder, `${kind}-content`);
  let plain: PlainContent;
  let daemon: Daemon;
  let client: Client;
  beforeAll(async () => {
    // Who is away at the start is no reason not to start.
    daemon = await startOn(kind, [path]);
    plain = await servePlainContent(path, root);
    client = new Client(daemon.socket);
  });
  afterAll(async () => {
    client.close();
    await daemon.stop();
    await plain.close();
  });

  test("what the process is asked", async () => {
    const content = client.content();
    const [one, two] = [newNamespace(), newNamespace()];
    plain.calls.length = 0;
    const writer = await content.writer({ namespace: one }, { ref: "r", totalBytes: 5n, expected: hello });
    await writer.write(bytes);
    await writer.commit({ expected: hello, labels: { a: "b" } });
    const reader = await content.open({ namespace: one }, hello);
    await reader.read(new Uint8Array(5), 0);
    const lent = await content.writer({ namespace: two }, { ref: "lent", expected: hello });
    await lent.commit({ labels: { c: "d" } });
    const left = await content.writer({ namespace: two }, { ref: "left" });
    await left.write(bytes);
    await left.close();
    await content.status({ namespace: two }, "left");
    await content.listStatuses({ namespace: two });
    await content.abort({ namespace: two }, "left");
    expect((await content.info({ namespace: one }, hello)).labels).toEqual({ a: "b" });
    expect((await content.info({ namespace: two }, hello)).labels).toEqual({ c: "d" });

    const stat = (ref: string, total: number) => JSON.stringify({ ref, expected: "", total, labels: {} });
    const commit = JSON.stringify({ ref: "", expected: hello, total: 5, labels: {} });
    const expected = [
      ["Info", one, hello],
      ["Write STAT", one, stat(`${one}/1/r`, 5)],
      ["Write COMMIT", one, commit],
      ["Info", one, hello],
      ["Read", one, hello],
      ["Info", two, hello],
      ["Write STAT", two, stat(`${two}/1/left`, 0)],
      ["Status", two, `${two}/1/left`],
      ["Status", two, `${two}/1/left`],
      ["Abort", two, `${two}/1/left`],
    ];
    const asked = plain.calls.filter(({ subject }) => subject !== stat("", 0));
    expect(plain.calls.filter(({ lease }) => lease !== null)).toEqual([]);
    // bunkerd looks again before it lends: what it found may have gone.
    const again = asked.findLastIndex(({ method, namespace }) => method === "Info" && namespace === two);
    if (kind === "bunkerd") asked.splice(again, 1);
    expect(asked.map(({ method, namespace, subject }) => [method, namespace, subject])).toEqual(
      expected as never,
    );
  });

  test("an image's container runs, and nothing is left of it in the store", async () => {
    const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
    const layer = tar([
      { name: "bin/", type: "5", mode: 0o755 },
      { name: "bin/busybox", mode: 0o755, data: busybox },
      { name: "bin/sh", type: "2", link: "busybox" },
    ]);
    const layout = new Layout();
    const [image, blob] = [layout.image([layer], "amd64"), digestOf(gzipSync(layer))];
    const annotations = { "io.containerd.image.name": "docker.io/library/box:1" };
    writeFileSync(join(daemon.folder, "box.tar"), layout.archive([{ ...image, annotations }]));
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    expect(await ctr("images", "import", "box.tar")).toMatchObject({ code: 0 });
    expect(await plain.digests()).toContain(blob);
    expect(existsSync(join(daemon.root, LOCAL, "blobs"))).toBe(false);
    const run = ["run", "--rm", "docker.io/library/box:1", "one", "/bin/sh", "-c", "echo $0"];
    expect(await ctr(...run)).toMatchObject({ code: 0, stdout: "/bin/sh\n" });
    expect(await ctr("images", "export", "out.tar", "docker.io/library/box:1")).toMatchObject({ code: 0 });
    expect(readFileSync(join(daemon.folder, "out.tar")).includes(gzipSync(layer))).toBe(true);

    plain.calls.length = 0;
    expect(await ctr("images", "rm", "--sync", "docker.io/library/box:1")).toMatchObject({ code: 0 });
    expect(await plain.digests()).not.toContain(blob);
    const ofCollection = plain.calls.filter(({ method }) => method === "Delete");
    expect(ofCollection.map(({ namespace: of }) => of)).toEqual(ofCollection.map(() => null));
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  }, 30_000);

  test("the process goes and comes back", async () => {
    const content = client.content();
    const scope = { namespace: newNamespace() };
    const writer = await content.writer(scope, { ref: "r" });
    await writer.write(bytes);
    await writer.commit({ labels: { "containerd.io/gc.root": "now" } });
    const ctr = ctrIn("2.1", daemon, scope.namespace);
    expect(await ctr("content", "get", hello)).toMatchObject({ code: 0, stdout: "hello" });
    await plain.close();
    const refused = await ctr("content", "get", hello);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(path);
    if (kind === "bunkerd") expect(refused.stderr).toContain('content store "far0": connection to');
    plain = await servePlainContent(path, root);
    await until(
      "the process is found again",
      async () => (await ctr("content", "get", hello)).stdout === "hello",
    );
    expect((await content.info(scope, hello)).size).toBe(5n);
  }, 30_000);

  test("one store is wanted, no more and no less", async () => {
    for (const [addresses, without, problem] of [
      [[path], [], "multiple plugins registered for io.containerd.content.v1: plugin: multiple instances"],
      [[], [LOCAL], "no plugins registered for io.containerd.content.v1: plugin: not found"],
    ] as const) {
      await using other = await startOn(kind, addresses, without);
      const ctr = ctrIn("2.1", other, "default");
      const { stdout } = await ctr("plugins", "ls", "--detailed", "type==io.containerd.metadata.v1");
      expect(stdout).toContain("Code:        Unknown");
      expect(stdout).toContain(problem);
      const { stderr } = await ctr("content", "ls");
      expect(stderr).toContain("unknown service containerd.services.content.v1.Content");
    }
  }, 30_000);
});

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("bunkerd on the content of %s", (kind) => {
  let backend: Daemon;
  let daemon: Daemon;
  let client: Client;
  let far: Client;
  beforeAll(async () => {
    backend = await startDaemon(kind, { config: WITHOUT_COLLECTION });
    daemon = await startOn("bunkerd", [backend.socket]);
    client = new Client(daemon.socket);
    far = new Client(backend.socket);
  });
  afterAll(async () => {
    client.close();
    far.close();
    await daemon.stop();
    await backend.stop();
  });

  describe("content", () => contentSuite(() => client.content()));

  test("large blobs come several at a time", async () => {
    const scope = { namespace: newNamespace() };
    const blobs = [0, 1, 2].map(() => randomBytes(12 << 20));
    const write = async (blob: Uint8Array, index: number): Promise<void> => {
      const writer = await client.content().writer(scope, { ref: `large-${index}` });
      for (let at = 0; at < blob.length; at += 256 << 10)
        await writer.write(blob.subarray(at, at + (256 << 10)));
      await writer.commit({ expected: digestOf(blob) });
    };
    await Promise.all(blobs.map(write));
    expect(await client.content().list(scope)).toHaveLength(3);
  }, 30_000);

  test("a collection removes what it has put there, and nothing else", async () => {
    const put = async (of: Client, namespace: string, text: string): Promise<string> => {
      const writer = await of.content().writer({ namespace }, { ref: text });
      await writer.write(new TextEncoder().encode(text));
      await writer.commit({});
      return writer.digest();
    };
    const listed = async (namespace: string): Promise<string[]> =>
      (await far.content().list({ namespace })).map(({ digest }) => digest);
    const [one, two] = [newNamespace(), newNamespace()];
    const others = await put(far, one, "others");
    const mine = await put(client, one, "mine");
    expect(await put(client, two, "mine")).toBe(mine);
    expect(await listed(two)).toEqual([mine]);
    const ctr = ctrIn("2.1", daemon, one);
    expect(await ctr("content", "prune", "references")).toMatchObject({ code: 0 });
    expect(await listed(one)).toEqual([others]);
    expect(await listed(two)).toEqual([]);
  });
});
