import { tell } from "./byte-stream.ts";
import { type ChannelCodec, Channels } from "./channels.ts";
import type { Session } from "./runtime.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import type { SpdyStream } from "./spdy/stream.ts";
import { encodeStatus, type StreamStatus } from "./status.ts";
import { terminalSizes } from "./terminal-sizes.ts";
import type { WebSocketConnection } from "./websocket/connection.ts";
import type { Wire } from "./wire.ts";

/** Which streams the request asked for. */
export interface WantedStreams {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

/** A client that has its streams: of an exec or an attach. */
export interface CommandConnection {
  readonly session: Session;
  /** Tells the client how it ended, and closes. */
  finish(status: StreamStatus): Promise<void>;
}

/** Of SPDY, the best first: kubelet's `remotecommand/constants.go`. */
export const COMMAND_PROTOCOLS: readonly string[] = [
  "v4.channel.k8s.io",
  "v3.channel.k8s.io",
  "v2.channel.k8s.io",
  "channel.k8s.io",
];

/** Of WebSocket; a client that names none speaks the oldest. */
export const COMMAND_CHANNELS: Readonly<Record<string, ChannelCodec>> = {
  "v5.channel.k8s.io": { base64: false, closes: true },
  "v4.channel.k8s.io": { base64: false, closes: false },
  "v4.base64.channel.k8s.io": { base64: true, closes: false },
  "channel.k8s.io": { base64: false, closes: false },
  "base64.channel.k8s.io": { base64: true, closes: false },
  "": { base64: false, closes: false },
};

const STREAM_CREATION_TIMEOUT_MS = 30_000;
/** More than any protocol has; the others are refused. */
const MAX_STREAMS = 8;
const [STDIN, STDOUT, STDERR, ERROR, RESIZE] = [0, 1, 2, 3, 4];

export interface CommandOptions {
  readonly wanted: WantedStreams;
  readonly protocol: string;
  readonly idleTimeoutMs: number;
}

/** Waits until the client has made its streams; undefined if it has not within 30 s, or has gone. */
export async function spdyCommand(
  wire: Wire,
  { wanted, protocol, idleTimeoutMs }: CommandOptions,
): Promise<CommandConnection | undefined> {
  const streams = new Map<string, SpdyStream>();
  const missing = new Set(streamTypes(wanted, protocol));
  const complete = Promise.withResolvers<boolean>();
  const connection = new SpdyConnection(wire, {
    role: "server",
    idleTimeoutMs,
    maxStreams: MAX_STREAMS,
    accept(stream) {
      const type = stream.headers.get("streamtype") ?? "";
      if (streams.has(type)) return false;
      streams.set(type, stream);
      missing.delete(type);
      // Once the reply has gone out: what is written before would come too early.
      if (missing.size === 0) queueMicrotask(() => complete.resolve(true));
      return true;
    },
  });
  const gone = new AbortController();
  void connection.closed.then(() => {
    gone.abort();
    complete.resolve(false);
  });
  const timer = setTimeout(() => complete.resolve(false), STREAM_CREATION_TIMEOUT_MS);
  const ready = await complete.promise;
  clearTimeout(timer);
  if (!ready) {
    connection.close();
    return undefined;
  }
  const resize = streams.get("resize");
  const error = streams.get("error");
  return {
    session: {
      stdin: wanted.stdin ? streams.get("stdin")?.bytes : undefined,
      stdout: streams.get("stdout"),
      stderr: streams.get("stderr"),
      resize: resize === undefined ? undefined : terminalSizes(resize.bytes),
      gone: gone.signal,
    },
    async finish(status) {
      const text = encodeStatus(status, protocol === "v4.channel.k8s.io");
      if (text.length > 0) await tell(error, text);
      for (const name of ["stdout", "stderr", "error"]) streams.get(name)?.end();
      connection.close();
    },
  };
}

/** A client of one of the subprotocols in {@link COMMAND_CHANNELS}. */
export function webSocketCommand(
  connection: WebSocketConnection,
  { wanted, protocol }: CommandOptions,
): CommandConnection {
  const codec = COMMAND_CHANNELS[protocol] ?? { base64: false, closes: false };
  const channels = new Channels(connection, codec, RESIZE + 1);
  for (const channel of [STDOUT, STDERR, ERROR]) channels.ignore(channel);
  if (!wanted.stdin) channels.ignore(STDIN);
  if (!wanted.tty) channels.ignore(RESIZE);
  const output = (channel: number, is: boolean) => (is ? channels.stream(channel) : undefined);
  // Tells the client that it is connected.
  const lowest = wanted.stdout ? STDOUT : wanted.stderr ? STDERR : ERROR;
  void tell(channels.stream(lowest), new Uint8Array(0));
  return {
    session: {
      stdin: wanted.stdin ? channels.stream(STDIN).bytes : undefined,
      stdout: output(STDOUT, wanted.stdout),
      stderr: output(STDERR, wanted.stderr && !wanted.tty),
      resize: wanted.tty ? terminalSizes(channels.stream(RESIZE).bytes) : undefined,
      gone: channels.gone,
    },
    async finish(status) {
      const text = encodeStatus(status, /^v[45]\./.test(protocol));
      if (text.length > 0) await tell(channels.stream(ERROR), text);
      connection.close();
    },
  };
}

function streamTypes({ stdin, stdout, stderr, tty }: WantedStreams, protocol: string): string[] {
  const resizes = /^v[34]\./.test(protocol);
  return [
    "error",
    ...(stdin ? ["stdin"] : []),
    ...(stdout ? ["stdout"] : []),
    ...(stderr ? ["stderr"] : []),
    ...(tty && resizes ? ["resize"] : []),
  ];
}
