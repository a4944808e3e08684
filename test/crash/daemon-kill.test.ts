/**
 * `kill -9` under concurrent writes, round after round on one root: what was acknowledged is there, what was under way
 * is there whole or not at all, and the database is clean. At least 200 rounds with BUNKERD_TEST_LONG=1.
 */
import { expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Container, Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { ctr } from "../support/commands.ts";
import { type Daemon, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { connectGrpc, inNamespace } from "../support/grpc.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";
import { jsonAny } from "../support/workload.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 20 : 200;
const WORKERS = 24;
const IDS_OF_WORKER = 40;
const LONGEST_ROUND_MS = 300;
const SIZES = [10, 500, 4_000, 30_000] as const;
const NAMESPACE = inNamespace("crash");

/** Revision of a container; 0 means that there is none. */
type Revision = number;

interface Ledger {
  /** What the daemon has acknowledged. */
  readonly acknowledged: Map<string, Revision>;
  /** What it was asked for and has not answered. */
  readonly pending: Map<string, Revision>;
  revisions: number;
  answers: number;
  /** The kill of this round is under way: calls may break now. */
  killed: boolean;
}

/** Every field tells the revision, so that a half-written container gives itself away. */
function revisionOf(container: Container): Revision {
  const spec = JSON.parse(new TextDecoder().decode(container.spec?.value)) as {
    revision: number;
    filler: string;
  };
  const told = [
    container.image,
    container.labels["revision"],
    container.extensions["e"]?.typeUrl,
    `${spec.revision}`,
  ];
  if (new Set(told).size !== 1) throw new Error(`half of container ${container.id}: ${told.join(" ")}`);
  if (spec.filler.length !== SIZES[spec.revision % SIZES.length])
    throw new Error(`cut spec of ${container.id}`);
  return spec.revision;
}

function containerAt(id: string, revision: Revision) {
  return {
    id,
    runtime: { name: "r" },
    image: `${revision}`,
    labels: { revision: `${revision}` },
    spec: jsonAny({ revision, filler: "x".repeat(SIZES[revision % SIZES.length] ?? 0) }),
    extensions: { e: { typeUrl: `${revision}`, value: new Uint8Array(8) } },
  } as const;
}

const MASK = { paths: ["image", "labels", "spec", "extensions"] };

/** Writes to the worker's own ids until the daemon is gone. */
async function write(daemon: Daemon, worker: number, random: Random, ledger: Ledger): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const containers = connection.client(Containers);
  for (;;) {
    const id = `w${worker}-${random.below(IDS_OF_WORKER)}`;
    const exists = (ledger.acknowledged.get(id) ?? 0) !== 0;
    const revision = exists && random.below(3) === 0 ? 0 : ++ledger.revisions;
    ledger.pending.set(id, revision);
    try {
      if (revision === 0) await containers.delete({ id }, NAMESPACE);
      else if (exists) {
        await containers.update({ container: containerAt(id, revision), updateMask: MASK }, NAMESPACE);
      } else await containers.create({ container: containerAt(id, revision) }, NAMESPACE);
    } catch (error) {
      if (error instanceof ConnectError && ledger.killed && BROKEN.has(error.code)) return;
      throw error;
    }
    ledger.pending.delete(id);
    ledger.acknowledged.set(id, revision);
    ledger.answers++;
  }
}

/** What a client says when the connection breaks. */
const BROKEN: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Aborted,
  Code.Canceled,
  Code.Internal,
  Code.Unknown,
]);

async function verify(daemon: Daemon, ledger: Ledger): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const found = new Map<string, Revision>();
  for await (const { container } of connection.client(Containers).listStream({}, NAMESPACE)) {
    if (container !== undefined) found.set(container.id, revisionOf(container));
  }
  const wrong: string[] = [];
  for (const id of new Set([...found.keys(), ...ledger.acknowledged.keys(), ...ledger.pending.keys()])) {
    const [is, was, asked] = [found.get(id) ?? 0, ledger.acknowledged.get(id) ?? 0, ledger.pending.get(id)];
    if (is !== was && is !== asked) wrong.push(`${id}: found ${is}, acknowledged ${was}, asked ${asked}`);
    ledger.acknowledged.set(id, is);
  }
  ledger.pending.clear();
  expect(wrong).toEqual([]);
}

test(`${ROUNDS} rounds of kill -9 under ${WORKERS} writers`, async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const ledger: Ledger = {
    acknowledged: new Map(),
    pending: new Map(),
    revisions: 0,
    answers: 0,
    killed: false,
  };
  let daemon = await startDaemon("bunkerd");
  try {
    let cut = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const writers = Array.from({ length: WORKERS }, (_, worker) => write(daemon, worker, random, ledger));
      const written = Promise.all(writers);
      // When it is killed is the test's random input: no waiting for something to have happened.
      await Promise.race([written, Bun.sleep(1 + random.below(LONGEST_ROUND_MS))]);
      ledger.killed = true;
      await daemon.kill();
      await written;
      ledger.killed = false;
      cut += ledger.pending.size;
      const checked = await checkDatabase(daemon.database);
      expect(checked).toMatchObject({ code: 0 });
      daemon = await startDaemon("bunkerd", { folder: daemon.folder });
      await verify(daemon, ledger);
    }
    process.stdout.write(`${ROUNDS} rounds, ${ledger.answers} acknowledged, ${cut} cut off, seed ${seed}\n`);
    expect(ledger.answers).toBeGreaterThan(ROUNDS);
    expect(cut).toBeGreaterThan(0);
    await opensInContainerd(daemon, ledger);
  } catch (error) {
    process.stdout.write(`BUNKERD_TEST_SEED=${seed}\n`);
    throw error;
  } finally {
    await daemon.stop();
  }
}, 7_200_000);

/** The last word is containerd's. */
async function opensInContainerd(killed: Daemon, ledger: Ledger): Promise<void> {
  await killed.kill();
  const reference = await startDaemon("containerd-2.1", { folder: killed.folder });
  try {
    const listed = await ctr("2.1", reference, "--namespace", "crash", "containers", "ls", "--quiet");
    const there = [...ledger.acknowledged].filter(([, revision]) => revision !== 0).map(([id]) => id);
    expect(listed.stdout.split("\n").filter((id) => id !== "")).toEqual(there.sort());
  } finally {
    await reference.halt();
  }
}
