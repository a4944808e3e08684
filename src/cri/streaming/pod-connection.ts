import type { Socket } from "bun";
import { inNetworkNamespace } from "../../linux/netns.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { type ByteStream, Inbox } from "./byte-stream.ts";

/** The client may still send for so long after the pod has ended its side. */
const LINGER_MS = 1000;
const MAX_QUEUED_BYTES = 1 << 20;

/**
 * Connects to a port of localhost in a pod's network and carries bytes both ways until both have ended, the pod's connection has broken,
 * or the client has gone. IPv4 first, then IPv6. Source: containerd `internal/cri/server/sandbox_portforward_linux.go`; unlike there, what
 * the client's end leaves to be answered is.
 * @param netnsPath undefined for the host's network @throws Unknown if nobody listens
 */
export async function forwardToPod(
  netnsPath: string | undefined,
  port: number,
  stream: ByteStream,
  gone: AbortSignal,
): Promise<void> {
  const pod = await dial(netnsPath, port);
  const leave = (): void => pod.destroy();
  gone.addEventListener("abort", leave, { once: true });
  try {
    if (gone.aborted) leave();
    const sent = sendToPod(pod, stream);
    await receiveFromPod(pod, stream);
    await within(LINGER_MS, sent);
  } finally {
    gone.removeEventListener("abort", leave);
    pod.destroy();
  }
}

async function within(timeoutMs: number, done: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, timeoutMs);
  await Promise.race([done, late.promise]);
  clearTimeout(timer);
}

async function sendToPod(pod: PodConnection, stream: ByteStream): Promise<void> {
  for await (const bytes of stream.bytes) if (!(await pod.write(bytes))) return;
  pod.end();
}

async function receiveFromPod(pod: PodConnection, stream: ByteStream): Promise<void> {
  try {
    for await (const bytes of pod.inbox) await stream.write(bytes);
  } catch {
    // The client takes no more.
  }
  stream.end();
}

async function dial(netnsPath: string | undefined, port: number): Promise<PodConnection> {
  const inside = <T>(run: () => T): T =>
    netnsPath === undefined ? run() : inNetworkNamespace(netnsPath, run);
  const failures: string[] = [];
  try {
    for (const hostname of ["127.0.0.1", "::1"]) {
      // The socket is made and connects before this turn ends: it is the pod's.
      const { connecting } = inside(() => ({ connecting: PodConnection.connect(hostname, port) }));
      try {
        return await connecting;
      } catch (error) {
        failures.push(dialFailure(hostname, port, error));
      }
    }
  } catch (error) {
    throw failure(netnsPath, messageOf(error));
  }
  const where = `localhost:${port} inside namespace ${quote(netnsPath ?? "host")}`;
  throw failure(netnsPath, `failed to connect to ${where}, IPv4: ${failures[0]} IPv6 ${failures[1]}`);
}

/** As Go says it. */
function dialFailure(hostname: string, port: number, error: unknown): string {
  const [network, address] = hostname.includes(":") ? ["tcp6", `[${hostname}]`] : ["tcp4", hostname];
  const { code } = error as NodeJS.ErrnoException;
  const reason = code === "ECONNREFUSED" ? "connection refused" : messageOf(error);
  return `dial ${network} ${address}:${port}: connect: ${reason}`;
}

function failure(netnsPath: string | undefined, reason: string): BunkerdError {
  const where = `network namespace ${quote(netnsPath ?? "host")}`;
  return new BunkerdError("Unknown", `failed to execute portforward in ${where}: ${reason}`);
}

/** A connection to a port, whose two sides end one by one. */
class PodConnection {
  readonly inbox: Inbox;
  #socket: Socket | undefined;
  #room: PromiseWithResolvers<void> | undefined;
  #over = false;
  #paused = false;

  private constructor() {
    this.inbox = new Inbox(() => this.#regulate());
  }

  /** @throws Error if nobody listens */
  static async connect(hostname: string, port: number): Promise<PodConnection> {
    const connection = new PodConnection();
    const wake = (): void => connection.#room?.resolve();
    connection.#socket = await Bun.connect({
      hostname,
      port,
      allowHalfOpen: true,
      socket: {
        // Bun's buffer is its own again after the call.
        data: (_socket, bytes) => {
          connection.inbox.push(new Uint8Array(bytes));
          connection.#regulate();
        },
        drain: wake,
        end: () => connection.inbox.end(),
        error: () => connection.#close(),
        close: () => connection.#close(),
      },
    });
    return connection;
  }

  /** False once the connection has broken. */
  async write(bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length && !this.#over; ) {
      const written = this.#socket?.write(bytes.subarray(at)) ?? -1;
      if (written < 0) return false;
      at += written;
      if (at === bytes.length) break;
      this.#room = Promise.withResolvers();
      await this.#room.promise;
      this.#room = undefined;
    }
    return !this.#over;
  }

  /** Ends our side. */
  end(): void {
    // With `true` Bun would end the other side.
    if (!this.#over) this.#socket?.shutdown();
  }

  destroy(): void {
    if (!this.#over) this.#socket?.terminate();
    this.#close();
  }

  #close(): void {
    this.#over = true;
    this.inbox.end();
    this.#room?.resolve();
  }

  #regulate(): void {
    if (this.#over) return;
    const full = this.inbox.queuedBytes > MAX_QUEUED_BYTES;
    if (full === this.#paused) return;
    this.#paused = full;
    if (full) this.#socket?.pause();
    else this.#socket?.resume();
  }
}
