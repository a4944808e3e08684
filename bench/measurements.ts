/** What `make bench` measures, one function a figure; each takes a running daemon and returns one sample. */

import { readFileSync } from "node:fs";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  Containers,
  CreateContainerRequestSchema,
  DeleteContainerRequestSchema,
  GetContainerRequestSchema,
  ListContainersRequestSchema,
  UpdateContainerRequestSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { type Daemon, type DaemonKind, type DaemonOptions, launchDaemon } from "../test/support/daemons.ts";
import { connectGrpc, inNamespace } from "../test/support/grpc.ts";
import { containerOf } from "../test/support/workload.ts";
import { h2load, h2loadLatencies, type Rate } from "./h2load.ts";
import { BenchConnection, methodOf } from "./http2-client.ts";

const PATH = "/containerd.services.containers.v1.Containers";
const SPEC_BYTES = 4096;
export const WORKERS = 32;
/** What collectors do not need they give back within seconds; ours looks every five whether the daemon is idle. */
export const SETTLE_MS = 20_000;

/** Fills a namespace with `count` containers of `sizeBytes`; one in a hundred carries the label that the filter seeks. */
export async function fill(
  daemon: Daemon,
  namespace: string,
  count: number,
  sizeBytes: number,
): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const containers = connection.client(Containers);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) {
      const labels = { app: n % 100 === 0 ? "sought" : "other" };
      await containers.create(
        { container: { ...containerOf(`c${n}`, sizeBytes), labels } },
        inNamespace(namespace),
      );
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
}

function createRequest(id: string): Uint8Array {
  const request: MessageInitShape<typeof CreateContainerRequestSchema> = {
    container: containerOf(id, SPEC_BYTES),
  };
  return toBinary(CreateContainerRequestSchema, create(CreateContainerRequestSchema, request));
}

function updateRequest(id: string, value: string): Uint8Array {
  const request = { container: { id, labels: { value } }, updateMask: { paths: ["labels"] } };
  return toBinary(UpdateContainerRequestSchema, create(UpdateContainerRequestSchema, request));
}

function deleteRequest(id: string): Uint8Array {
  return toBinary(DeleteContainerRequestSchema, create(DeleteContainerRequestSchema, { id }));
}

/** Milliseconds of one create, one after another: the median of `count`. */
export async function createLatency(daemon: Daemon, round: number, count: number): Promise<number> {
  const connection = await BenchConnection.open(daemon.socket);
  const method = methodOf(`${PATH}/Create`, "latency");
  const samples: number[] = [];
  for (let n = 0; n < count; n++) {
    const request = createRequest(`c${round + 100}-${n}`);
    const startedAt = performance.now();
    await connection.call(method, request);
    samples.push(performance.now() - startedAt);
  }
  connection.close();
  return median(samples);
}

export interface WriteRates {
  readonly create: number;
  readonly update: number;
  readonly delete: number;
}

/** Calls a second of 32 workers with one call under way each, on as many connections as said. */
export async function writeRates(
  daemon: Daemon,
  round: number,
  count: number,
  connectionCount: number,
): Promise<WriteRates> {
  const ids = Array.from({ length: count }, (_, n) => `c${round + 100}-${n}`);
  const open = Array.from({ length: connectionCount }, () => BenchConnection.open(daemon.socket));
  const connections = await Promise.all(open);
  const rateOf = async (name: string, requests: readonly Uint8Array[]): Promise<number> => {
    const method = methodOf(`${PATH}/${name}`, "writes");
    let next = 0;
    const startedAt = performance.now();
    await Promise.all(
      Array.from({ length: WORKERS }, async (_, worker) => {
        const connection = connections[worker % connectionCount];
        if (connection === undefined) throw new Error("no connection");
        for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
          await connection.call(method, request);
        }
      }),
    );
    return count / ((performance.now() - startedAt) / 1000);
  };
  const rates = {
    create: await rateOf("Create", ids.map(createRequest)),
    update: await rateOf(
      "Update",
      ids.map((id) => updateRequest(id, `${round}`)),
    ),
    delete: await rateOf("Delete", ids.map(deleteRequest)),
  };
  for (const connection of connections) connection.close();
  return rates;
}

/** Get of one container, by h2load: 32 calls at once on 8 connections, if nothing else is said. */
export function getRate(
  daemon: Daemon,
  namespace: string,
  requests: number,
  at = { connections: 8, streams: 4 },
): Promise<Rate> {
  return h2load(daemon.folder, { ...getOf(daemon, namespace), requests, ...at });
}

/** Milliseconds in which 99 of 100 calls are answered where `perSecond` Gets are begun each second, by h2load on 10 connections. */
export async function getTail(
  daemon: Daemon,
  namespace: string,
  perSecond: number,
  seconds: number,
): Promise<number> {
  const load = {
    ...getOf(daemon, namespace),
    requests: perSecond * seconds,
    connections: 10,
    streams: 100,
  };
  // The daemons take turns: what comes first after another's finds processor, code and connection cold, of either.
  await h2loadLatencies(daemon.folder, { ...load, requests: perSecond }, perSecond);
  const sorted = [...(await h2loadLatencies(daemon.folder, load, perSecond))].sort((a, b) => a - b);
  return (sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN) / 1000;
}

function getOf(daemon: Daemon, namespace: string) {
  const message = toBinary(GetContainerRequestSchema, create(GetContainerRequestSchema, { id: "c7" }));
  return { socket: daemon.socket, path: `${PATH}/Get`, namespace, message };
}

/** MiB of the daemon while `count` clients are connected that have asked once and ask no more. */
export async function idleConnectionsMemory(
  daemon: Daemon,
  namespace: string,
  count: number,
): Promise<number> {
  const method = methodOf(`${PATH}/Get`, namespace);
  const connections: BenchConnection[] = [];
  try {
    while (connections.length < count) {
      const connection = await BenchConnection.open(daemon.socket);
      connections.push(connection);
      await connection.call(method, getOf(daemon, namespace).message);
    }
    await Bun.sleep(SETTLE_MS);
    return memoryOf(daemon).rss;
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** List or ListStream, one after another, by h2load. */
export function listRate(
  daemon: Daemon,
  method: "List" | "ListStream",
  namespace: string,
  requests: number,
  filters: readonly string[] = [],
): Promise<Rate> {
  const request = create(ListContainersRequestSchema, { filters: [...filters] });
  const message = toBinary(ListContainersRequestSchema, request);
  const call = { socket: daemon.socket, path: `${PATH}/${method}`, namespace, message };
  return h2load(daemon.folder, { ...call, requests, connections: 1, streams: 1 });
}

export interface Memory {
  readonly rss: number;
  readonly pss: number;
  readonly anonymous: number;
}

/** MiB of the process. */
export function memoryOf(daemon: Daemon): Memory {
  const rollup = readFileSync(`/proc/${daemon.pid}/smaps_rollup`, "utf8");
  const mib = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(rollup)?.[1]) / 1024;
  return { rss: mib("Rss"), pss: mib("Pss"), anonymous: mib("Anonymous") };
}

export interface Start {
  /** Milliseconds from the start of the process to its answer to Get. */
  readonly firstAnswer: number;
  /** Milliseconds of the first List of all, right after. */
  readonly firstList: number;
}

/** Starts a daemon on a filled store, asks it as soon as it listens, and ends it. */
export async function startTime(kind: DaemonKind, namespace: string, options: DaemonOptions): Promise<Start> {
  const get = toBinary(GetContainerRequestSchema, create(GetContainerRequestSchema, { id: "c7" }));
  const startedAt = performance.now();
  const daemon = await launchDaemon(kind, options);
  const connection = await connectSoon(daemon, startedAt);
  await connection.call(methodOf(`${PATH}/Get`, namespace), get);
  const answeredAt = performance.now();
  await connection.call(methodOf(`${PATH}/List`, namespace), new Uint8Array(0));
  const listedAt = performance.now();
  connection.close();
  await daemon.halt();
  return { firstAnswer: answeredAt - startedAt, firstList: listedAt - answeredAt };
}

async function connectSoon(daemon: Daemon, startedAt: number): Promise<BenchConnection> {
  for (;;) {
    try {
      return await BenchConnection.open(daemon.socket);
    } catch (error) {
      if (performance.now() - startedAt > 60_000) throw error;
      await Bun.sleep(1);
    }
  }
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const [low = Number.NaN, high = Number.NaN] = [
    sorted[(sorted.length - 1) >> 1],
    sorted[sorted.length >> 1],
  ];
  return (low + high) / 2;
}
