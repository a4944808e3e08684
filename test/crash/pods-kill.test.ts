/**
 * `kill -9`, and now and then SIGTERM, of the daemon amid random calls of six kubelets at once: pods, containers, execs, images, lists, stats. The next daemon tells
 * what was answered, what runs goes on running, lists agree with the records, and nothing is there for what is not; once all is removed nothing is left. 60 rounds
 * with BUNKERD_TEST_LONG=1, BUNKERD_TEST_ROUNDS for another number.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Content } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { until } from "../support/containers.ts";
import { type CriDaemon, podConfig, prepareCri, runContainer, script, startCri } from "../support/cri.ts";
import {
  interfaces,
  machineTraces,
  type Records,
  recordsOf,
  removeCgroup,
  shimSockets,
} from "../support/cri-traces.ts";
import { launchDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { debianPackage } from "../support/debian.ts";
import { inNamespace } from "../support/grpc.ts";
import { enterHostNetwork } from "../support/netns.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { cgroupOf, look, PodWorker, pidOf } from "../support/random-pods.ts";
import { pushImage, type Registry, startRegistry } from "../support/registry.ts";
import { buildImage, tar } from "../support/tar.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const ROUNDS = Number(process.env["BUNKERD_TEST_ROUNDS"] ?? (LONG ? 60 : 4));
const LONGEST_ROUND_MS = LONG ? 3000 : 1200;
const WORKERS = LONG ? 6 : 4;
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const HOST = "registry.example";
const SCOPE = inNamespace("k8s.io");

const random = randomFrom(testSeed());
const shared = temporaryFolder();
let host: ReturnType<typeof enterHostNetwork>;
let registry: Registry;

const imageOf = (worker: number): string => `${HOST}/own${worker}:1`;

beforeAll(async () => {
  await prepareCri();
  await debianPackage("bookworm", "docker-registry");
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const base = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...["sh", "sleep", "echo"].map((name) => ({ name: `bin/${name}`, type: "2" as const, link: "busybox" })),
  ]);
  const pack = (layer: Buffer) => ({ blob: gzipSync(layer, { level: 1 }), mediaType: LAYER });
  // Filled on the machine's own network, used on the test's.
  const filled = await startRegistry(join(shared, "registry"), await freePort());
  for (let worker = 0; worker < WORKERS; worker++) {
    const own = tar([{ name: "own", data: random.text(100_000) }]);
    const image = buildImage(`own${worker}`, [base, own], pack, { Env: ["PATH=/bin"] });
    await pushImage(filled, `own${worker}`, "1", image);
  }
  await filled.stop();
  host = enterHostNetwork();
  registry = await startRegistry(join(shared, "registry"), await freePort());
  mkdirSync(join(shared, "certs.d", HOST), { recursive: true });
  writeFileSync(join(shared, "certs.d", HOST, "hosts.toml"), `server = "http://${registry.host}"\n`);
});
afterAll(async () => {
  await registry.stop();
  host[Symbol.dispose]();
  removeFolder(shared);
});

const options = () => ({
  plugin: "netns_mounts_under_state_dir = true",
  config: `[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${join(shared, "certs.d")}"`,
});

/** Blobs and snapshots, when nothing but images keeps any. */
async function stored(cri: CriDaemon): Promise<{ blobs: string[]; snapshots: string[] }> {
  const leases = cri.client(Leases);
  for (const { id } of (await leases.list({}, SCOPE)).leases) await leases.delete({ id }, SCOPE);
  await leases.create({ id: "last" }, SCOPE);
  await leases.delete({ id: "last", sync: true }, SCOPE);
  const content = (await Array.fromAsync(cri.client(Content).list({}, SCOPE))).flatMap(({ info }) => info);
  const list = cri.client(Snapshots).list({ snapshotter: "overlayfs" }, SCOPE);
  const snapshots = (await Array.fromAsync(list)).flatMap(({ info }) => info);
  return {
    blobs: content.map(({ digest }) => digest).sort(),
    snapshots: snapshots.map(({ name }) => name).sort(),
  };
}

/** Paths that the daemon has open, of its own folder and of kernel objects. */
function openPaths({ daemon }: CriDaemon): string[] {
  const folder = `/proc/${daemon.pid}/fd`;
  const paths = readdirSync(folder).map((fd) => {
    try {
      return readlinkSync(join(folder, fd));
    } catch {
      return "";
    }
  });
  return paths.filter((path) => /[0-9a-f]{64}|\/netns\/|cgroup|logs\//.test(path));
}

/** What is there although nobody has a pod or a container for it; the records must agree with the lists. */
async function astray(cri: CriDaemon, everSeen: Set<string>): Promise<string[]> {
  const records = await recordsOf(cri);
  const seen = await look(cri);
  const pods = [...seen.pods.values()].map(({ id }) => id).sort();
  const containers = [...seen.containers.values()].map(({ id }) => id).sort();
  const known = new Set([...pods, ...containers]);
  for (const id of pods) everSeen.add(id);
  const traces = [
    ...records.traces,
    ...(await machineTraces(cri.daemon.folder, cgroupOf(cri.daemon.folder), records.networks)),
  ];
  const gone = [...everSeen].filter((id) => !known.has(id));
  return [
    ...traces.filter(({ of }) => of === undefined || !known.has(of)).map(({ what }) => what),
    ...records.endless.map((id) => `lease without end ${id}`),
    ...differences("pod", records, pods, "pods"),
    ...differences("container", records, containers, "containers"),
    ...shimSockets(cri.daemon.folder, gone),
  ];
}

function differences(
  noun: string,
  records: Records,
  listed: readonly string[],
  kind: "pods" | "containers",
): string[] {
  return [
    ...records[kind]
      .filter((id) => !listed.includes(id))
      .map((id) => `record of a ${noun} that is not listed ${id}`),
    ...listed.filter((id) => !records[kind].includes(id)).map((id) => `${noun} without a record ${id}`),
  ];
}

async function nothingAstray(cri: CriDaemon, everSeen: Set<string>, label: string): Promise<void> {
  let rest: string[] = [];
  await until(
    () => `nothing is astray, ${label}:\n${rest.join("\n")}\n${cri.daemon.log().slice(-4000)}`,
    async () => {
      rest = await astray(cri, everSeen);
      return rest.length === 0;
    },
  );
}

/** The daemon ends, and comes back; now and then it is killed on the way. */
async function restart(cri: CriDaemon): Promise<CriDaemon> {
  const { folder } = cri.daemon;
  cri.close();
  expect(await checkDatabase(cri.daemon.database)).toMatchObject({ code: 0 });
  while (random.below(4) === 0) {
    const wholeConfig = () => readFileSync(join(folder, "config.toml"), "utf8");
    const early = await launchDaemon("bunkerd", { folder, wholeConfig });
    await Bun.sleep(random.below(400));
    await early.kill();
  }
  return await startCri("bunkerd", { folder, ...options() });
}

test(`${ROUNDS} rounds`, async () => {
  let cri = await startCri("bunkerd", options());
  const everSeen = new Set<string>();
  const before = await stored(cri);
  const config = podConfig(cri.daemon, { linux: { cgroupParent: cgroupOf(cri.daemon.folder) } });
  const { podSandboxId: anchorPod } = await cri.runtime.runPodSandbox({ config });
  const anchor = await runContainer(cri, anchorPod, config, script("anchor", "while true; do sleep 1; done"));
  const anchorPid = await pidOf(cri, anchor);
  const workers = Array.from(
    { length: WORKERS },
    (_, at) => new PodWorker(`w${at}`, cri, imageOf(at), randomFrom(random.below(2 ** 32))),
  );
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const label = `seed ${random.seed} round ${round}`;
      let isOver = false;
      const living = Promise.all(workers.map((worker) => worker.live(() => isOver)));
      await Promise.race([living, Bun.sleep(random.below(LONGEST_ROUND_MS))]).catch((cause: unknown) => {
        throw new Error(`${label}: ${cause}\n${cri.daemon.log().slice(-4000)}`, { cause });
      });
      isOver = true;
      if (random.below(5) === 0) expect(await cri.daemon.halt(), label).toBe(0);
      else await cri.daemon.kill();
      await living;
      cri = await restart(cri);
      const seen = await look(cri);
      for (const worker of workers)
        await worker.settle(cri, seen).catch((cause: unknown) => {
          throw new Error(`${label}: ${cause}\n${cri.daemon.log().slice(-6000)}`, { cause });
        });
      expect(await pidOf(cri, anchor), label).toBe(anchorPid);
      await nothingAstray(cri, everSeen, label);
    }
    const calls = workers.reduce((sum, worker) => sum + worker.calls, 0);
    process.stderr.write(`seed ${random.seed}: ${calls} calls answered\n`);
    for (const worker of workers) await worker.end();
    await cri.runtime.removePodSandbox({ podSandboxId: anchorPod });
    await nothingAstray(cri, everSeen, `seed ${random.seed}, in the end`);
    expect((await look(cri)).pods.size).toBe(0);
    expect(await interfaces()).toEqual([]);
    expect(await stored(cri)).toEqual(before);
    await until(
      () => `closed: ${openPaths(cri)}`,
      () => openPaths(cri).length === 0,
    );
    removeCgroup(cgroupOf(cri.daemon.folder));
  } catch (error) {
    // It may have been between two daemons.
    await cri.daemon.kill();
    cri = await startCri("bunkerd", { folder: cri.daemon.folder, ...options() });
    throw error;
  } finally {
    await cri[Symbol.asyncDispose]();
  }
}, 3_600_000);
