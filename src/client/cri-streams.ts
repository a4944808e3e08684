/**
 * The streams behind the URLs that a CRI runtime answers to Exec, Attach and PortForward, over WebSocket: `v5.channel.k8s.io`, which can
 * end stdin, else `v4.channel.k8s.io`, which cannot (kubelet's `pkg/cri/streaming/remotecommand/websocket.go`).
 */
import { BunkerdError, type ErrorCode, fail } from "../model/errors.ts";

const V5 = "v5.channel.k8s.io";
const V4 = "v4.channel.k8s.io";

const Channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const;

/** More than this unsent, and whoever writes has to wait. */
const MAX_UNSENT_BYTES = 1 << 20;

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

export interface RemoteCommand {
  readonly onStdout: (bytes: Uint8Array) => void;
  readonly onStderr: (bytes: Uint8Array) => void;
  /** What the command reads; ended when it ends, if the runtime can be told. */
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
  /** Sizes of the terminal, the first at once. */
  readonly sizes?: AsyncIterable<TerminalSize> | undefined;
  readonly signal?: AbortSignal;
}

/** Runs to the command's end; its exit code. For an attach 0, when the container's streams have ended. @throws what the runtime says, Unavailable */
export async function runRemoteCommand(url: string, command: RemoteCommand): Promise<number> {
  const socket = await open(url, [V5, V4]);
  const abort = (): void => socket.close();
  command.signal?.addEventListener("abort", abort, { once: true });
  let status: Status | undefined;
  const closed = new Promise<CloseEvent>((resolve) => {
    socket.addEventListener("close", resolve);
  });
  socket.addEventListener("message", ({ data }) => {
    const bytes = new Uint8Array(data as ArrayBuffer);
    const body = bytes.subarray(1);
    if (bytes[0] === Channel.stdout) command.onStdout(body);
    else if (bytes[0] === Channel.stderr) command.onStderr(body);
    else if (bytes[0] === Channel.error && body.length > 0) status = parseStatus(body);
  });
  const failures: unknown[] = [];
  // What cannot be read once nobody wants it is no failure.
  const give = (error: unknown): void => {
    if (socket.readyState === WebSocket.OPEN) failures.push(error);
    socket.close();
  };
  if (command.stdin !== undefined) sendStdin(socket, command.stdin).catch(give);
  if (command.sizes !== undefined) sendSizes(socket, command.sizes).catch(give);
  const { code, reason } = await closed;
  if (failures.length > 0) throw failures[0];
  command.signal?.removeEventListener("abort", abort);
  command.signal?.throwIfAborted();
  if (status !== undefined) return exitCodeOf(status);
  if (code === 1000) return 0;
  throw fail(
    "Unavailable",
    `stream ${withoutToken(url)} broke off (${code}${reason === "" ? "" : ` ${reason}`})`,
  );
}

/** `metav1.Status`, as far as it is used here. */
interface Status {
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
}

function parseStatus(bytes: Uint8Array): Status {
  const text = Buffer.from(bytes).toString();
  try {
    return JSON.parse(text) as Status;
  } catch {
    // Runtimes before version 4 of the protocol write the message alone.
    return { status: "Failure", message: text };
  }
}

function exitCodeOf({ status, reason, message = "the command failed", details }: Status): number {
  if (status === "Success") return 0;
  const code = details?.causes?.find((cause) => cause.reason === "ExitCode")?.message;
  if (reason === "NonZeroExitCode" && code !== undefined) return Number(code);
  const class_: ErrorCode = reason === "NotFound" ? "NotFound" : "Unknown";
  throw new BunkerdError(class_, message);
}

async function sendStdin(socket: WebSocket, input: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of input) {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(framed(Channel.stdin, chunk));
    await drained(socket);
  }
  if (socket.protocol === V5 && socket.readyState === WebSocket.OPEN)
    socket.send(framed(Channel.close, Uint8Array.of(Channel.stdin)));
}

async function sendSizes(socket: WebSocket, sizes: AsyncIterable<TerminalSize>): Promise<void> {
  for await (const { columns, rows } of sizes) {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(framed(Channel.resize, Buffer.from(JSON.stringify({ Width: columns, Height: rows }))));
  }
}

function framed(channel: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(bytes.length + 1);
  frame[0] = channel;
  frame.set(bytes, 1);
  return frame;
}

async function drained(socket: WebSocket): Promise<void> {
  while (socket.bufferedAmount > MAX_UNSENT_BYTES && socket.readyState === WebSocket.OPEN) await Bun.sleep(5);
}

export interface ForwardedConnection {
  /** To the container. */
  send(bytes: Uint8Array): Promise<void>;
  close(): void;
}

export interface ForwardHandler {
  readonly onData: (bytes: Uint8Array) => void;
  readonly onClose: (failure: string) => void;
}

/** One connection to one port of a pod. Channel 0 carries data, 1 the failure; the first frame of each is the port. @throws Unavailable */
export async function forwardConnection(
  url: string,
  port: number,
  handler: ForwardHandler,
): Promise<ForwardedConnection> {
  const target = new URL(url);
  target.searchParams.set("port", String(port));
  const socket = await open(target.href, [V4]);
  const begun = new Set<number>();
  let failure = "";
  socket.addEventListener("message", ({ data }) => {
    const bytes = new Uint8Array(data as ArrayBuffer);
    const channel = bytes[0] ?? 0;
    const body = bytes.subarray(1);
    if (!begun.has(channel)) begun.add(channel);
    else if (channel === 0) handler.onData(body);
    else failure += Buffer.from(body).toString();
    if (failure !== "") socket.close();
  });
  socket.addEventListener("close", () => handler.onClose(failure));
  return {
    async send(bytes) {
      if (socket.readyState === WebSocket.OPEN) socket.send(framed(0, bytes));
      await drained(socket);
    },
    close: () => socket.close(),
  };
}

function open(url: string, protocols: string[]): Promise<WebSocket> {
  const address = url.replace(/^http/, "ws");
  // The runtime's certificate is its own: it is reached by an address that it told over its socket.
  const socket = new WebSocket(address, { protocols, tls: { rejectUnauthorized: false } } as never);
  socket.binaryType = "arraybuffer";
  return new Promise((resolve, reject) => {
    socket.addEventListener("open", () => resolve(socket), { once: true });
    const refuse = (): void => reject(fail("Unavailable", `stream ${withoutToken(url)}`));
    socket.addEventListener("error", refuse, { once: true });
    socket.addEventListener("close", refuse, { once: true });
  });
}

/** The last part of the path lets anybody in who knows it. */
function withoutToken(url: string): string {
  return url.replace(/\?.*/, "").replace(/[^/]*$/, "…");
}
