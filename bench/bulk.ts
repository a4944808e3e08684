/**
 * Bulk streams: bytes a second of Content's Read and Write with messages of 1 MiB, ours and containerd's in turn, by the same
 * native client (nghttp2's h2load), and the processor time that the daemon spent on them. `bun bench/bulk.ts [MiB]`.
 */
import { createHash, randomFillSync } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  Content,
  ReadContentRequestSchema,
  WriteAction,
  WriteContentRequestSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { COLLECTION_WHEN_ASKED, type Daemon, startDaemon } from "../test/support/daemons.ts";
import { connectGrpc, inNamespace } from "../test/support/grpc.ts";
import { figure, printFigures, progress, SIDES, sidesOf } from "./figures.ts";
import { h2loadBody } from "./h2load.ts";
import { downloadRaw } from "./http2-client.ts";

const PATH = "/containerd.services.content.v1.Content";
const NAMESPACE = "bulk";
const MESSAGE_BYTES = 1 << 20;
const TICKS_PER_SECOND = 100;

/** A blob is read in less time than its compilation takes: several times a round. */
const READS = 4;

/** Streams of either daemon for each round of other benches: a stream takes a fraction of a second, in which the machine may do something else. */
const STREAMS_A_ROUND = 2;

export type BulkCall = "read" | "ingest" | "ingest and commit";

/** Bodies of requests, as files that h2load sends. */
export interface Bulk {
  readonly sizeBytes: number;
  readonly digest: string;
  readonly bodies: Readonly<Record<BulkCall, string>>;
}

export interface BulkRate {
  readonly mibPerSecond: number;
  /** User and system time of the daemon, seconds a GiB. */
  readonly cpuSecondsPerGib: number;
}

/** Writes the bodies into `folder`: a blob of random bytes in messages of 1 MiB, and the request that reads it. */
export function makeBulk(folder: string, sizeMib: number): Bulk {
  const sizeBytes = sizeMib * MESSAGE_BYTES;
  const data = randomFillSync(Buffer.alloc(sizeBytes));
  const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
  const bodies = {
    read: join(folder, "body-read"),
    ingest: join(folder, "body-ingest"),
    "ingest and commit": join(folder, "body-commit"),
  };
  writeBody(bodies.read, [toBinary(ReadContentRequestSchema, create(ReadContentRequestSchema, { digest }))]);
  for (const call of ["ingest", "ingest and commit"] as const) {
    writeBody(bodies[call], writeRequests(data, call, call === "ingest" ? undefined : digest));
  }
  return { sizeBytes, digest, bodies };
}

function* writeRequests(data: Uint8Array, ref: string, commit: string | undefined): Iterable<Uint8Array> {
  const encode = (fields: Parameters<typeof create<typeof WriteContentRequestSchema>>[1]): Uint8Array =>
    toBinary(WriteContentRequestSchema, create(WriteContentRequestSchema, fields));
  yield encode({ action: WriteAction.STAT, ref, total: BigInt(data.length) });
  for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
    const piece = data.subarray(at, at + MESSAGE_BYTES);
    yield encode({ action: WriteAction.WRITE, ref, offset: BigInt(at), data: piece });
  }
  if (commit === undefined) return;
  const total = BigInt(data.length);
  yield encode({ action: WriteAction.COMMIT, ref, offset: total, total, expected: commit });
}

function writeBody(path: string, messages: Iterable<Uint8Array>): void {
  const fd = openSync(path, "w");
  for (const message of messages) {
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    writeSync(fd, prefix);
    writeSync(fd, message);
  }
  closeSync(fd);
}

/**
 * One stream of the whole blob, of reads some one after another. Reads want it committed; what an ingest leaves is removed. The time is the
 * client's, from its first connection to the last byte: its process takes as long to start as 40 MiB to read.
 */
export async function bulkRate(daemon: Daemon, bulk: Bulk, call: BulkCall): Promise<BulkRate> {
  const path = `${PATH}/${call === "read" ? "Read" : "Write"}`;
  const requests = call === "read" ? READS : 1;
  const load = { socket: daemon.socket, path, namespace: NAMESPACE, requests, connections: 1, streams: 1 };
  const cpuBefore = cpuSeconds(daemon.pid);
  const { answerBytes, perSecond } = await h2loadBody({ ...load, body: bulk.bodies[call] });
  const cpu = cpuSeconds(daemon.pid) - cpuBefore;
  const least = call === "read" ? bulk.sizeBytes : (bulk.sizeBytes / MESSAGE_BYTES) * 5;
  if (answerBytes < least) throw new Error(`${daemon.kind} answered ${answerBytes} bytes to ${call}`);
  return {
    mibPerSecond: (bulk.sizeBytes / MESSAGE_BYTES) * perSecond,
    cpuSecondsPerGib: (cpu * 2 ** 30) / (bulk.sizeBytes * requests),
  };
}

/** Takes away what an ingest left, so that the next one begins anew. */
export async function clearBulk(daemon: Daemon, bulk: Bulk, call: BulkCall): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const content = connection.client(Content);
  if (call === "ingest") {
    await content.abort({ ref: call }, inNamespace(NAMESPACE));
    return;
  }
  await content.delete({ digest: bulk.digest }, inNamespace(NAMESPACE));
  // A blob whose file is still there would be found at the next commit, which would then only throw away what came.
  const leases = connection.client(Leases);
  await leases.create({ id: "collected" }, inNamespace(NAMESPACE));
  await leases.delete({ id: "collected", sync: true }, inNamespace(NAMESPACE));
  const [algorithm = "", sum = ""] = bulk.digest.split(":");
  const store = join(daemon.root, "io.containerd.content.v1.content");
  if (existsSync(join(store, "blobs", algorithm, sum))) throw new Error(`${daemon.kind} kept ${bulk.digest}`);
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

const CALLS = [
  ["ingest and commit", "content ingest and commit"],
  ["read", "content read"],
  ["ingest", "content ingest"],
] as const;

/** Adds the figures of streams of `sizeMib`. */
export async function measureBulk(rounds: number, sizeMib = 256): Promise<void> {
  progress("bulk streams");
  const daemons = {
    ours: await startDaemon("bunkerd", { config: COLLECTION_WHEN_ASKED }),
    containerd: await startDaemon("containerd-2.1", { config: COLLECTION_WHEN_ASKED }),
  };
  const bulk = makeBulk(daemons.ours.folder, sizeMib);
  for (const [call, name] of CALLS) {
    const rate = figure(`${name}, messages of 1 MiB`, "MiB/s", { atLeast: 1.5 });
    const cpu = figure(`CPU of the daemon, ${name}`, "s/GiB", undefined);
    // The first round warms up; who is first changes.
    for (let round = 0; round <= rounds * STREAMS_A_ROUND; round++) {
      for (const [side] of sidesOf(round)) {
        if (call !== "read" && round > 0) await clearBulk(daemons[side], bulk, call);
        const sample = await bulkRate(daemons[side], bulk, call);
        if (round === 0) continue;
        rate.samples[side].push(sample.mibPerSecond);
        cpu.samples[side].push(sample.cpuSecondsPerGib);
      }
    }
  }
  const raw = figure("content read by a client of raw frames", "GB/s", undefined);
  for (let round = 0; round <= rounds * STREAMS_A_ROUND; round++) {
    for (const [side] of sidesOf(round)) {
      const bytesPerSecond = await rawReadRate(daemons[side], bulk);
      if (round > 0) raw.samples[side].push(bytesPerSecond / 1e9);
    }
  }
  for (const [side] of SIDES) await daemons[side].stop();
}

/** Bytes a second of a read whose client counts what comes and looks at nothing. */
async function rawReadRate(daemon: Daemon, bulk: Bulk): Promise<number> {
  const body = readFileSync(bulk.bodies.read);
  const startedAt = performance.now();
  const bytes = await downloadRaw(daemon.socket, `${PATH}/Read`, NAMESPACE, body, bulk.sizeBytes);
  return bytes / ((performance.now() - startedAt) / 1000);
}

if (import.meta.main) {
  const rounds = Number(process.env["ROUNDS"] ?? 5);
  await measureBulk(rounds, Number(process.argv[2] ?? 256));
  printFigures(rounds);
}
