/**
 * Mixed calls, random cancels and disconnects on a thousand connections for a minute (BUNKERD_SOAK_SECONDS; 30 minutes with
 * BUNKERD_TEST_LONG=1): nothing is left open, and memory does not grow.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { linesOf, removeFolder, start, temporaryFolder } from "../../support/processes.ts";
import { type Random, randomFrom, testSeed } from "../../support/random.ts";
import { encodePayload, pathOf } from "../grpc/service.ts";
import { F, frame, grpcRequest, RawClient, T, u32 } from "./raw-client.ts";

const SECONDS = Number(process.env["BUNKERD_SOAK_SECONDS"] ?? (process.env["BUNKERD_TEST_LONG"] ? 1800 : 60));
const CONNECTIONS = 1000;
const WORKERS = 40;
/** Windows that last for a connection's life. */
const WINDOW = 2 ** 31 - 1;
const LIFE_BYTES = 1 << 30;

interface Peer {
  client: RawClient;
  nextId: number;
  bytes: number;
}

async function dial(path: string): Promise<Peer> {
  const client = await RawClient.open(path, [[4, WINDOW]]);
  client.frame(T.window, 0, 0, u32(WINDOW - 65_535));
  return { client, nextId: 1, bytes: 0 };
}

function message(size: number, count: number): Buffer {
  const payload = encodePayload({ data: new Uint8Array(size), count });
  return Buffer.concat([Buffer.of(0), u32(payload.length), payload]);
}

/** Sends a message in frames, and what the server says meanwhile is read by whoever waits for the answer. */
function sendMessage(client: RawClient, id: number, bytes: Buffer, endStream: boolean): void {
  for (let at = 0; at < bytes.length; at += 16_384) {
    const last = at + 16_384 >= bytes.length;
    client.frame(T.data, last && endStream ? F.endStream : 0, id, bytes.subarray(at, at + 16_384));
  }
}

/** One thing that a client may do; false if it has left. */
async function act(peer: Peer, random: Random): Promise<boolean> {
  const { client } = peer;
  const id = peer.nextId;
  peer.nextId += 2;
  switch (random.below(12)) {
    case 0: // A stream that is cancelled while it waits.
      client.headers(id, grpcRequest(pathOf("Spread")));
      sendMessage(client, id, message(0, -1), true);
      if (random.below(2) === 0) await client.until((got) => got.type === T.headers && got.id === id);
      client.frame(T.reset, 0, id, u32(8));
      return true;
    case 1: // A stream that is cancelled while it sends.
      client.headers(id, grpcRequest(pathOf("Spread")));
      sendMessage(client, id, message(10_000, 100), true);
      await client.until((got) => got.type === T.data && got.id === id);
      client.frame(T.reset, 0, id, u32(8));
      peer.bytes += 1_000_000;
      return true;
    case 2: // Half a request, and gone.
      client.headers(id, grpcRequest(pathOf(random.pick(["Echo", "Collect", "Chat"]))));
      client.frame(T.data, 0, id, message(5000, 1).subarray(0, random.below(4000)));
      return false;
    case 3: // Half a frame, and gone.
      client.send(
        frame(T.headers, F.endHeaders, id, grpcRequest(pathOf("Echo"))).subarray(0, random.below(60)),
      );
      return false;
    case 4:
    case 5: {
      client.headers(id, grpcRequest(pathOf(random.pick(["Collect", "Chat"]))));
      for (let sent = random.below(5); sent >= 0; sent--)
        sendMessage(client, id, message(random.below(9000), sent), sent === 0);
      peer.bytes += bytesOf(await client.answer(id));
      return true;
    }
    case 6:
      client.headers(id, grpcRequest(pathOf("Spread")));
      sendMessage(client, id, message(20_000, 20), true);
      peer.bytes += bytesOf(await client.answer(id));
      return true;
    default:
      client.headers(id, grpcRequest(pathOf(random.pick(["Echo", "EchoEncoded"]))));
      sendMessage(client, id, message(random.pick([0, 1, 100, 3000, 16_383, 150_000]), 1), true);
      peer.bytes += bytesOf(await client.answer(id));
      return true;
  }
}

function bytesOf(frames: readonly { readonly payload: Buffer }[]): number {
  return frames.reduce((sum, { payload }) => sum + payload.length, 0);
}

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

test(
  `${SECONDS} seconds`,
  async () => {
    const seed = testSeed();
    const folder = temporaryFolder();
    const path = join(folder, "s.sock");
    const child = start([process.execPath, join(import.meta.dir, "soak-server.ts"), path], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    const lines = linesOf(child.stdout);
    try {
      await lines.next();
      const peers: Peer[] = [];
      while (peers.length < CONNECTIONS)
        peers.push(...(await Promise.all(Array.from({ length: 50 }, () => dial(path)))));
      const memory: number[] = [];
      const endMs = Date.now() + SECONDS * 1000;
      let acts = 0;
      const work = async (worker: number): Promise<void> => {
        const random = randomFrom(seed + worker);
        for (let at = worker; Date.now() < endMs; at = (at + WORKERS) % CONNECTIONS) {
          const peer = peers[at];
          if (peer === undefined) throw new Error("no connection");
          acts += 1;
          if ((await act(peer, random)) && peer.bytes < LIFE_BYTES) continue;
          await peer.client[Symbol.asyncDispose]();
          peers[at] = await dial(path);
        }
      };
      const sampler = setInterval(() => memory.push(residentBytes(child.pid)), 250);
      await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
      clearInterval(sampler);
      for (const { client } of peers) await client[Symbol.asyncDispose]();
      let left = "";
      // The last disconnects take a turn to be seen.
      for (let tries = 0; tries < 100 && !left.includes('"connections":0'); tries++) {
        child.stdin.write("open?\n");
        await child.stdin.flush();
        left = (await lines.next()).value ?? "";
      }
      expect({ seed, ...JSON.parse(left) }).toEqual({
        seed,
        connections: 0,
        streams: 0,
        calls: 0,
        running: 0,
        errors: [],
      });
      expect(acts).toBeGreaterThan(SECONDS * 100);
      const tenth = Math.floor(memory.length / 10);
      const early = mean(memory.slice(tenth, 2 * tenth));
      const late = mean(memory.slice(-tenth));
      process.stdout.write(
        `${acts} calls, RSS ${Math.round(early / 1e6)} MB, later ${Math.round(late / 1e6)} MB\n`,
      );
      expect(late / early).toBeLessThan(1.1);
    } finally {
      child.kill();
      await child.exited;
      removeFolder(folder);
    }
  },
  (SECONDS + 60) * 1000,
);
