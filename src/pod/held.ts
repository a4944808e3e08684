/** Requests of a runtime that may be held without end. */
import type { CriClient } from "../client/cri.ts";

const PATIENCE_MS = 10_000;

/** The request was given up; what it asked for is had by asking again. */
export class Held extends Error {
  override readonly name = "Held";
}

/**
 * A call that makes a sandbox or a container. CRI-O finishes what it was making when its caller goes away, and hands it out by the next request of the same
 * name; one that comes too early it holds until that caller goes away as well, or for four minutes (`server/utils.go`, `getResourceOrWait`).
 * So nobody waits there for long. @throws Held; else what `call` throws
 */
export async function unlessHeld<T>(
  cri: Pick<CriClient, "version">,
  call: (either: AbortSignal) => Promise<T>,
  signal = new AbortController().signal,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const cut = new AbortController();
  const timer = setTimeout(() => void cutIfHeld(cri, cut), patienceMs);
  try {
    return await call(AbortSignal.any([signal, cut.signal]));
  } catch (error) {
    if (!cut.signal.aborted || signal.aborted) throw error;
    throw new Held("the runtime has not finished it yet", { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

async function cutIfHeld(cri: Pick<CriClient, "version">, cut: AbortController): Promise<void> {
  // A runtime that does not answer this will not answer the call either: that is told there.
  const { runtimeName } = await cri.version().catch(() => ({ runtimeName: "" }));
  if (runtimeName === "cri-o") cut.abort();
}
