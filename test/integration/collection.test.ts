/**
 * Garbage collection: after the same random calls containerd 2.1 and bunkerd have collected the same. And `ctr` and `bunkerd gc`,
 * which ask for it, and leases that expire on an idle daemon.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ConnectError } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Content, WriteAction } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { CTR_VERSIONS, ctr } from "../support/commands.ts";
import {
  bunkerdCommand,
  COLLECTION_WHEN_ASKED,
  type Daemon,
  daemonKinds,
  startDaemon,
} from "../support/daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "../support/grpc.ts";
import { run } from "../support/processes.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 4 : 60;
const CHANGES = 60;
const NAMESPACES = ["one", "two"] as const;
const SNAPSHOTTER = "native";
const PAST = "2001-01-01T00:00:00Z";
const FUTURE = "2100-01-01T00:00:00Z";
/** Keeps what a round makes until it is over. */
const ROUND_LEASE = "round";

type Labels = Record<string, string>;
type Call = (connection: Connection) => Promise<unknown>;

const digestOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;

const under = (namespace: string, lease = ROUND_LEASE) =>
  inNamespace(namespace, { "containerd-lease": lease });

async function writeBlob(
  connection: Connection,
  namespace: string,
  text: string,
  labels: Labels,
  lease?: string,
): Promise<void> {
  async function* send() {
    const data = new TextEncoder().encode(text);
    yield { action: WriteAction.COMMIT, ref: `write ${text}`, data, expected: digestOf(text), labels };
  }
  await Array.fromAsync(
    connection
      .client(Content)
      .write(send(), lease === undefined ? inNamespace(namespace) : under(namespace, lease)),
  );
}

/** Leaves an ingest that nobody writes. */
async function beginBlob(
  connection: Connection,
  namespace: string,
  ref: string,
  lease: string | undefined,
): Promise<void> {
  async function* send() {
    yield { action: WriteAction.WRITE, ref, data: new TextEncoder().encode("half") };
  }
  await Array.fromAsync(
    connection
      .client(Content)
      .write(send(), lease === undefined ? inNamespace(namespace) : under(namespace, lease)),
  );
}

/** Names that the calls choose from: few, so that they meet. */
class Names {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  blob = (): string => `blob ${this.#random.below(25)}`;
  snapshot = (): string => `snapshot ${this.#random.below(15)}`;
  image = (): string => `image/${this.#random.below(8)}`;
  lease = (): string => `lease ${this.#random.below(6)}`;
  container = (): string => `container-${this.#random.below(5)}`;

  /** Labels that refer to any of them, and such that only look as if. Containerd 2.1 has no `gc.bref.*` yet. */
  labels(): Labels {
    const random = this.#random;
    const labels: Labels = {};
    for (let left = random.below(4); left > 0; left--) {
      const suffix = random.pick(["", ".x", "/y", `.${random.below(3)}`, "z"]);
      const [key, value] = random.pick([
        [`gc.ref.content${suffix}`, digestOf(this.blob())],
        [`gc.ref.content.l${suffix}`, digestOf(this.blob())],
        [`gc.ref.snapshot.${SNAPSHOTTER}`, this.snapshot()],
        [`gc.ref.snapshot.${SNAPSHOTTER}/${random.below(3)}`, this.snapshot()],
        [`gc.ref.image${suffix}`, this.image()],
        random.below(4) === 0 ? ["gc.root", "x"] : ["gc.other", "x"],
      ] as const);
      labels[`containerd.io/${key}`] = value;
    }
    return labels;
  }
}

/** One change, chosen so that both daemons get the same. */
function changeOf(random: Random): Call {
  const names = new Names(random);
  const namespace = random.pick(NAMESPACES);
  const options = under(namespace);
  const labels = names.labels();
  const [blob, name, lease, container, key] = [
    names.blob(),
    names.image(),
    names.lease(),
    names.container(),
    names.snapshot(),
  ];
  const parent = random.below(2) === 0 ? "" : names.snapshot();
  const expire: Labels = random.pick([
    {},
    {},
    { "containerd.io/gc.expire": PAST },
    { "containerd.io/gc.expire": FUTURE },
  ]);
  const kind = random.below(14);
  const flat: Labels = random.below(3) === 0 ? { "containerd.io/gc.flat": "x" } : {};
  const type = random.pick(["content", "images", "ingests", `snapshots/${SNAPSHOTTER}`]);
  const id =
    { content: digestOf(blob), images: name, ingests: "ingest", [`snapshots/${SNAPSHOTTER}`]: key }[type] ??
    "";
  // When one goes that has expired is each daemon's own choice: no other call depends on it.
  const isExpired = expire["containerd.io/gc.expire"] === PAST;
  const newLease = isExpired ? `expired ${random.below(2 ** 31)}` : lease;
  const target = { digest: digestOf(blob), mediaType: "x", size: 1n };
  return async (connection) => {
    const snapshots = connection.client(Snapshots);
    switch (kind) {
      case 0:
      case 1:
      case 2:
        return writeBlob(connection, namespace, blob, labels, ROUND_LEASE);
      case 3:
        return connection.client(Content).update({ info: { digest: digestOf(blob), labels } }, options);
      case 4:
      case 5:
        await snapshots.prepare({ snapshotter: SNAPSHOTTER, key: `${key} active`, parent }, options);
        return snapshots.commit(
          { snapshotter: SNAPSHOTTER, key: `${key} active`, name: key, labels },
          options,
        );
      case 6:
        return snapshots.view({ snapshotter: SNAPSHOTTER, key: `${key} view`, parent: key, labels }, options);
      case 7:
        return connection
          .client(Images)
          .create({ image: { name, target, labels: { ...labels, ...expire } } }, options);
      case 8:
        return connection.client(Images).delete({ name }, options);
      case 9:
        await connection
          .client(Leases)
          .create({ id: newLease, labels: { ...expire, ...flat } }, inNamespace(namespace));
        if (newLease === lease) return;
        return connection
          .client(Leases)
          .addResource({ id: newLease, resource: { id, type } }, inNamespace(namespace))
          .catch(() => undefined);
      case 10:
        return connection
          .client(Leases)
          .addResource({ id: lease, resource: { id, type } }, inNamespace(namespace));
      case 11:
        return connection.client(Leases).delete({ id: lease }, inNamespace(namespace));
      case 12: {
        const runtime = { name: "io.containerd.runc.v2" };
        const spec = { typeUrl: "x", value: new Uint8Array() };
        const snapshot = random.seed % 2 === 0 ? { snapshotter: SNAPSHOTTER, snapshotKey: key } : {};
        return connection
          .client(Containers)
          .create({ container: { id: container, runtime, spec, labels, ...snapshot } }, options);
      }
      default:
        if (parent === "") return connection.client(Containers).delete({ id: container }, options);
        return beginBlob(connection, namespace, "ingest", lease);
    }
  };
}

async function outcomeOf(call: Call, connection: Connection): Promise<unknown> {
  try {
    await call(connection);
    return "done";
  } catch (error) {
    if (error instanceof ConnectError) return error.code;
    throw error;
  }
}

interface State {
  readonly [kind: string]: readonly string[];
}

async function stateOf(connection: Connection, namespace: string): Promise<State> {
  const options = inNamespace(namespace);
  const content = connection.client(Content);
  const blobs = (await Array.fromAsync(content.list({}, options))).flatMap(({ info }) =>
    info.map(({ digest }) => digest),
  );
  const snapshots = await Array.fromAsync(
    connection.client(Snapshots).list({ snapshotter: SNAPSHOTTER }, options),
  );
  return {
    blobs: blobs.sort(),
    ingests: (await content.listStatuses({}, options)).statuses.map(({ ref }) => ref).sort(),
    snapshots: snapshots.flatMap(({ info }) => info.map(({ name }) => name)).sort(),
    images: (await connection.client(Images).list({}, options)).images.map(({ name }) => name),
    leases: (await connection.client(Leases).list({}, options)).leases.map(({ id }) => id),
  };
}

/** Names of files and folders that are left of blobs and snapshots. */
function filesOf({ root }: Daemon): readonly string[][] {
  const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []).sort();
  return [
    names(join(root, "io.containerd.content.v1.content/blobs/sha256")),
    names(join(root, "io.containerd.content.v1.content/ingest")),
    [String(names(join(root, `io.containerd.snapshotter.v1.${SNAPSHOTTER}/snapshots`)).length)],
  ];
}

describe("after the same calls", () => {
  const kinds = daemonKinds("containerd-2.1", "bunkerd");
  const daemons: Daemon[] = [];
  const connections: Connection[] = [];
  beforeAll(async () => {
    for (const kind of kinds) {
      const daemon = await startDaemon(kind, { config: COLLECTION_WHEN_ASKED });
      daemons.push(daemon);
      connections.push(connectGrpc(daemon.socket));
    }
  });
  afterAll(async () => {
    for (const connection of connections) connection.close();
    for (const daemon of daemons) await daemon.stop();
  });

  /** Begins a round: what is there is kept until it ends, so that collections in between, of which each daemon has its own, take nothing. */
  async function protect(connection: Connection, namespace: string): Promise<void> {
    const leases = connection.client(Leases);
    await leases.create({ id: ROUND_LEASE }, inNamespace(namespace));
    const { blobs = [], snapshots = [], images = [], ingests = [] } = await stateOf(connection, namespace);
    for (const [type, ids] of Object.entries({
      content: blobs,
      [`snapshots/${SNAPSHOTTER}`]: snapshots,
      images,
      ingests,
    })) {
      for (const id of ids)
        await leases.addResource({ id: ROUND_LEASE, resource: { id, type } }, inNamespace(namespace));
    }
  }

  test(`${ROUNDS} rounds of ${CHANGES} random changes: the same is left, in the database and on disk`, async () => {
    const random = randomFrom(testSeed());
    let collected = 0;
    for (let round = 0; round < ROUNDS; round++) {
      for (const connection of connections)
        for (const namespace of NAMESPACES) await protect(connection, namespace);
      for (let n = 0; n < CHANGES; n++) {
        const call = changeOf(random);
        const outcomes = await Promise.all(connections.map((connection) => outcomeOf(call, connection)));
        expect(new Set(outcomes).size, `seed ${random.seed} round ${round} change ${n}: ${outcomes}`).toBe(1);
      }
      const states: unknown[] = [];
      for (const [index, connection] of connections.entries()) {
        const before = await Promise.all(NAMESPACES.map((namespace) => stateOf(connection, namespace)));
        for (const namespace of NAMESPACES) {
          const sync = namespace === NAMESPACES.at(-1);
          await connection.client(Leases).delete({ id: ROUND_LEASE, sync }, inNamespace(namespace));
        }
        const after = await Promise.all(NAMESPACES.map((namespace) => stateOf(connection, namespace)));
        states.push([after, filesOf(daemons[index] as Daemon)]);
        collected += JSON.stringify(before).length - JSON.stringify(after).length;
      }
      for (const state of states.slice(1))
        expect(state, `seed ${random.seed} round ${round}`).toEqual(states[0]);
    }
    expect(collected).toBeGreaterThan(0);
  }, 600_000);
});

describe("asked for", () => {
  let daemon: Daemon;
  let connection: Connection;
  // Anew each time: once it has collected, a daemon collects again when it likes.
  beforeEach(async () => {
    daemon = await startDaemon("bunkerd", { config: COLLECTION_WHEN_ASKED });
    connection = connectGrpc(daemon.socket);
  });
  afterEach(async () => {
    connection.close();
    await daemon.stop();
  });
  const blobFile = (text: string): string =>
    join(
      daemon.root,
      "io.containerd.content.v1.content/blobs/sha256",
      digestOf(text).slice("sha256:".length),
    );
  const bunkerd = (...args: string[]) =>
    run([...bunkerdCommand(), ...args, "--config", join(daemon.folder, "config.toml")]);

  test.each(CTR_VERSIONS.map((version) => [version] as const))(
    "ctr %s: leases rm --sync, images rm --sync and content prune references wait until files are gone",
    async (version) => {
      const leases = connection.client(Leases);
      const options = inNamespace("default");
      await leases.create({ id: "l" }, options);
      await writeBlob(connection, "default", "leased", {}, "l");
      expect(existsSync(blobFile("leased"))).toBe(true);
      expect(await ctr(version, daemon, "leases", "rm", "--sync", "l")).toMatchObject({ code: 0 });
      expect(existsSync(blobFile("leased"))).toBe(false);

      await leases.create({ id: "l" }, options);
      await writeBlob(connection, "default", "of image", {}, "l");
      const target = { digest: digestOf("of image"), mediaType: "x", size: 8n };
      await connection.client(Images).create({ image: { name: "i", target } }, options);
      await leases.delete({ id: "l", sync: true }, options);
      expect(existsSync(blobFile("of image"))).toBe(true);
      expect(await ctr(version, daemon, "images", "rm", "--sync", "i")).toMatchObject({ code: 0 });
      expect(existsSync(blobFile("of image"))).toBe(false);

      await writeBlob(connection, "default", "stray", {});
      expect(await ctr(version, daemon, "content", "prune", "references")).toMatchObject({ code: 0 });
      expect(existsSync(blobFile("stray"))).toBe(false);
    },
  );

  test("bunkerd gc plans, collects and explains, of a daemon that runs and of one that does not", async () => {
    const [layer, manifest, stray] = ["layer", "manifest", "stray"].map(digestOf) as [string, string, string];
    await connection.client(Leases).create({ id: "l" }, inNamespace("default"));
    await writeBlob(connection, "default", "layer", {}, "l");
    await writeBlob(connection, "default", "manifest", { "containerd.io/gc.ref.content.l.0": layer }, "l");
    await writeBlob(connection, "default", "stray", {}, "l");
    const target = { digest: manifest, mediaType: "x", size: 8n };
    await connection
      .client(Images)
      .create({ image: { name: "example.org/i:1", target } }, inNamespace("default"));
    expect(await bunkerd("gc", "--dry-run")).toMatchObject({ code: 0, stdout: "" });
    expect((await bunkerd("gc", "explain", `content/${stray}`)).stdout).toContain("lease l is a root");
    await connection.client(Leases).delete({ id: "l" }, inNamespace("default"));
    const explained = [
      `content ${layer} is kept:`,
      "  image example.org/i:1 is a root (image)",
      `  refers by target to content ${manifest}`,
      `  refers by containerd.io/gc.ref.content.l.0 to content ${layer}`,
      "",
    ].join("\n");
    const nothing = `content ${stray}: nothing keeps it, the next collection removes it\n`;
    const look = async (): Promise<void> => {
      expect((await bunkerd("gc", "--dry-run")).stdout).toBe(`default content ${stray}\n`);
      expect(await bunkerd("gc", "explain", layer)).toMatchObject({ code: 0, stdout: explained });
      expect(await bunkerd("gc", "explain", "-n", "default", stray)).toMatchObject({
        code: 0,
        stdout: nothing,
      });
      const missing = await bunkerd("gc", "explain", "image/none");
      expect(missing).toMatchObject({
        code: 1,
        stderr: 'bunkerd: image "none" in namespace "default": not found\n',
      });
    };
    await look();
    connection.close();
    expect(await daemon.halt()).toBe(0);
    await look();
    expect(await bunkerd("gc")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("no daemon answers"),
    });
    expect(existsSync(blobFile("stray"))).toBe(true);
    daemon = await startDaemon("bunkerd", { folder: daemon.folder, config: COLLECTION_WHEN_ASKED });
    connection = connectGrpc(daemon.socket);
    expect(await bunkerd("gc")).toMatchObject({ code: 0, stdout: `default content ${stray}\n` });
    expect(existsSync(blobFile("stray"))).toBe(false);
  });
});

test("a lease that expires on an idle daemon takes with it what only it kept", async () => {
  await using daemon = await startDaemon("bunkerd");
  await using connection = connectGrpc(daemon.socket);
  const expire = new Date(Date.now() + 1500).toISOString();
  await connection
    .client(Leases)
    .create({ id: "short", labels: { "containerd.io/gc.expire": expire } }, inNamespace("default"));
  await writeBlob(connection, "default", "short", {}, "short");
  const blobs = join(daemon.root, "io.containerd.content.v1.content/blobs/sha256");
  expect(readdirSync(blobs)).toHaveLength(1);
  const deadline = performance.now() + 20_000;
  while (readdirSync(blobs).length > 0 && performance.now() < deadline) await Bun.sleep(20);
  expect(readdirSync(blobs)).toEqual([]);
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(expire));
  expect((await connection.client(Leases).list({}, inNamespace("default"))).leases).toEqual([]);
  const plugin = await ctr("2.1", daemon, "plugins", "ls", "-d", "type==io.containerd.gc.v1");
  expect(plugin.stdout).toMatch(/PauseThreshold +0\.02/);
});
