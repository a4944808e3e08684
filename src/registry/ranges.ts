import { readStretch, type Source, type Stretch } from "./parts.ts";

/*
 * A large blob by several connections, in order (containerd `core/remotes/docker/fetcher.go`, open): at most `parallelism` stretches of
 * `stretchBytes` are under way or wait to be read.
 */

/** Yields the stretch. A host that does not know ranges is read by one connection. */
export async function* readByRanges(
  source: Source,
  { start, end }: Stretch,
  options: {
    readonly parallelism: number;
    readonly stretchBytes: number;
    readonly signal: AbortSignal | undefined;
  },
): AsyncGenerator<Uint8Array> {
  const { parallelism, stretchBytes, signal } = options;
  const controller = new AbortController();
  const ended = signal === undefined ? controller.signal : AbortSignal.any([signal, controller.signal]);
  const queue: Download[] = [];
  let next = start;
  const begin = (): Download => {
    const to = Math.min(next + stretchBytes, end);
    const download = new Download(
      readStretch(source, { start: next, end: to }, ended, (isPart) => download.opened.resolve(isPart)),
    );
    next = to;
    queue.push(download);
    return download;
  };
  try {
    if (!(await begin().opened.promise)) {
      controller.abort();
      await settle(queue);
      yield* readStretch(source, { start, end }, signal);
      return;
    }
    while (queue.length > 0) {
      while (queue.length < parallelism && next < end) begin();
      yield* queue[0]?.pieces() ?? [];
      queue.shift();
    }
  } finally {
    controller.abort();
    await settle(queue);
  }
}

async function settle(queue: readonly Download[]): Promise<void> {
  await Promise.all(queue.map((download) => download.ended));
}

/** Runs ahead of its reader; holds at most its stretch. */
class Download {
  /** Whether the answer was the part alone; settled with the first answer or the end. */
  readonly opened = Promise.withResolvers<boolean>();
  readonly ended: Promise<void>;
  readonly #pieces: Uint8Array[] = [];
  #failure: { readonly error: unknown } | undefined;
  #isDone = false;
  #wake: (() => void) | undefined;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.ended = this.#run(source);
  }

  async #run(source: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const piece of source) {
        this.#pieces.push(piece);
        this.#wake?.();
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#isDone = true;
    // A failure is told by pieces(), to whom reads them.
    this.opened.resolve(true);
    this.#wake?.();
  }

  /** @throws what the download failed of */
  async *pieces(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) yield piece;
      else if (this.#failure !== undefined) throw this.#failure.error;
      else if (this.#isDone) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}
