import type { ContentStore, ContentWriter, WriterOptions } from "../model/content.ts";
import { fail, isError } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";

/** How long to wait at most before another try to write what somebody else writes. */
const MAX_RETRY_MS = 2048;

/**
 * Opens an ingest, as soon as whoever writes it lets go (containerd `core/content` OpenWriter).
 * @throws AlreadyExists if the namespace has the expected blob by then, Canceled when the caller has gone
 */
export async function openWriter(
  content: ContentStore,
  scope: Scope,
  options: WriterOptions,
): Promise<ContentWriter> {
  for (let limitMs = 16; ; limitMs = Math.min(limitMs * 2, MAX_RETRY_MS)) {
    throwIfGone(scope, `write ${options.ref}`);
    try {
      return await content.writer(scope, options);
    } catch (error) {
      if (!isError(error, "Unavailable")) throw error;
    }
    await delay(Math.random() * limitMs, scope.signal);
  }
}

function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/** @throws what the scope's signal was aborted for, or Canceled */
export function throwIfGone({ signal }: Scope, what: string): void {
  if (signal?.aborted !== true) return;
  throw isError(signal.reason) ? signal.reason : fail("Canceled", what);
}

/** Writes a small blob that is here already; that the namespace has it is no error. */
export async function writeBytes(
  content: ContentStore,
  scope: Scope,
  {
    ref,
    digest,
    bytes,
    labels = {},
  }: {
    readonly ref: string;
    readonly digest: string;
    readonly bytes: Uint8Array;
    readonly labels?: Readonly<Record<string, string>>;
  },
): Promise<void> {
  const sizeBytes = BigInt(bytes.length);
  try {
    const writer = await openWriter(content, scope, { ref, totalBytes: sizeBytes, expected: digest });
    try {
      if (writer.status().offset > 0n) await writer.truncate();
      await writer.write(bytes);
      await writer.commit({ sizeBytes, expected: digest, labels });
    } finally {
      await writer.close();
    }
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw error;
  }
}
