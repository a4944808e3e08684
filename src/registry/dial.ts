import { connect } from "node:net";
import { startTimer } from "../lib/timer.ts";
import { abortError, TransportFailure } from "./failures.ts";
import type { RegistryHost } from "./hosts.ts";

/**
 * Connects and lets go: fetch has no deadline for connecting alone, and a mirror that drops packets is to cost its `dial_timeout`, not the
 * half minute of an answer. @throws TransportFailure
 */
export async function dial(
  { host, scheme }: RegistryHost,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const url = new URL(`${scheme}://${host}`);
  const port = url.port === "" ? (scheme === "https" ? 443 : 80) : Number(url.port);
  const socket = connect({ host: url.hostname.replace(/^\[(.*)\]$/, "$1"), port });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = startTimer(() => reject(new TransportFailure("timeout", "dial: i/o timeout")), timeoutMs);
  const stop = (): void => reject(signal === undefined ? undefined : abortError(signal));
  signal?.addEventListener("abort", stop, { once: true });
  socket.once("connect", resolve);
  // What else goes wrong is the request's to tell.
  socket.once("error", () => resolve());
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    socket.on("error", () => undefined).destroy();
  }
}
