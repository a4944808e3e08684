import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import { type ByteStream, tell } from "./byte-stream.ts";
import { type ChannelCodec, Channels } from "./channels.ts";
import type { StreamingRuntime } from "./runtime.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import type { SpdyStream } from "./spdy/stream.ts";
import type { WebSocketConnection } from "./websocket/connection.ts";
import type { Wire } from "./wire.ts";

export const FORWARD_PROTOCOLS: readonly string[] = ["portforward.k8s.io"];
/** SPDY within WebSocket messages. */
export const FORWARD_TUNNEL = "SPDY/3.1+portforward.k8s.io";
export const FORWARD_CHANNELS: Readonly<Record<string, ChannelCodec>> = {
  "v4.channel.k8s.io": { base64: false, closes: false },
  "v4.base64.channel.k8s.io": { base64: true, closes: false },
  "": { base64: false, closes: false },
};

/** A data stream's other half must come within. */
const PAIR_TIMEOUT_MS = 30_000;
/** Two for each connection to a port. */
const MAX_STREAMS = 2000;
const MAX_PORT = 2 ** 16 - 1;

export interface ForwardOptions {
  readonly podSandboxId: string;
  readonly idleTimeoutMs: number;
  readonly runtime: StreamingRuntime;
  readonly logger: Logger;
}

/** The streams of one forwarded connection. */
interface Pair {
  data?: SpdyStream;
  error?: SpdyStream;
  readonly timer: ReturnType<typeof setTimeout>;
}

/**
 * Forwards connections as the client asks for them, a pair of streams each, until it has gone: kubelet's
 * `portforward/httpstream.go`.
 */
export async function forwardOverSpdy(wire: Wire, options: ForwardOptions): Promise<void> {
  const pairs = new Map<string, Pair>();
  const gone = new AbortController();
  const connection = new SpdyConnection(wire, {
    role: "server",
    idleTimeoutMs: options.idleTimeoutMs,
    maxStreams: MAX_STREAMS,
    accept(stream) {
      const port = portOf(stream);
      const type = stream.headers.get("streamtype");
      if (port === undefined || (type !== "data" && type !== "error")) return false;
      const id = requestIdOf(stream, type);
      const pair = pairs.get(id) ?? newPair(pairs, id);
      if (pair[type] !== undefined) return false;
      pair[type] = stream;
      const { data, error } = pair;
      if (data === undefined || error === undefined) return true;
      clearTimeout(pair.timer);
      pairs.delete(id);
      // Once the reply has gone out.
      queueMicrotask(() => void forwardPair(options, data, error, gone.signal));
      return true;
    },
  });
  await connection.closed;
  gone.abort();
  for (const { timer } of pairs.values()) clearTimeout(timer);
}

function newPair(pairs: Map<string, Pair>, id: string): Pair {
  const late = (): void => {
    pairs.delete(id);
    void tell(pair.error, Buffer.from(`timed out waiting for streams of request ${id}`));
    pair.error?.end();
    pair.data?.reset();
  };
  const pair: Pair = { timer: setTimeout(late, PAIR_TIMEOUT_MS) };
  pairs.set(id, pair);
  return pair;
}

async function forwardPair(
  options: ForwardOptions,
  data: SpdyStream,
  error: SpdyStream,
  gone: AbortSignal,
): Promise<void> {
  const failure = await forward(options, portOf(data) ?? 0, data, gone);
  if (failure === undefined) data.end();
  else {
    await tell(error, Buffer.from(failure));
    data.reset();
  }
  error.end();
  // Nobody reads on: both are over for us.
  data.inbox.discard();
  error.inbox.discard();
}

/**
 * Forwards one connection to each of the ports: channel 2n carries its data, 2n+1 its errors, and each begins with the port, two bytes
 * little-endian (kubelet's `portforward/websocket.go`).
 */
export async function forwardOverChannels(
  connection: WebSocketConnection,
  protocol: string,
  ports: readonly number[],
  options: ForwardOptions,
): Promise<void> {
  const codec = FORWARD_CHANNELS[protocol] ?? { base64: false, closes: false };
  const channels = new Channels(connection, codec, 2 * ports.length);
  const forwards = ports.map(async (port, index) => {
    const [data, error] = [channels.stream(2 * index), channels.stream(2 * index + 1)];
    channels.ignore(2 * index + 1);
    const name = Uint8Array.of(port & 0xff, port >> 8);
    for (const stream of [data, error]) await tell(stream, name);
    const failure = await forward(options, port, data, channels.gone);
    if (failure !== undefined) await tell(error, Buffer.from(failure));
    channels.ignore(2 * index);
  });
  await Promise.all(forwards);
  connection.close();
}

/** What went wrong, for the client. */
async function forward(
  { runtime, podSandboxId, logger }: ForwardOptions,
  port: number,
  stream: ByteStream,
  gone: AbortSignal,
): Promise<string | undefined> {
  try {
    await runtime.portForward(podSandboxId, port, stream, gone);
    return undefined;
  } catch (error) {
    logger.warn("forward port", { sandbox: podSandboxId, port, error: messageOf(error) });
    return `error forwarding port ${port} to pod ${podSandboxId}, uid : ${messageOf(error)}`;
  }
}

function portOf({ headers }: SpdyStream): number | undefined {
  const text = headers.get("port") ?? "";
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port > 0 && port <= MAX_PORT ? port : undefined;
}

/** Clients of old name no request: the error stream's id is the request's, and the data stream follows it. */
function requestIdOf({ id, headers }: SpdyStream, type: "data" | "error"): string {
  return headers.get("requestid") || String(type === "error" ? id : id - 2);
}
