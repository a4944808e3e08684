import { CANONICAL_ALGORITHM, type DigestAlgorithm } from "../model/digests.ts";
import { BunkerdError, type ErrorCode } from "../model/errors.ts";

/* Digests of large ingests, computed by a thread while the daemon's own receives what follows. */

/** To the thread, which answers each in its order. Shared memory stays where it is, other is copied. */
export type ToThread =
  | { readonly kind: "begin"; readonly id: number }
  /** A range of a file that is open. */
  | {
      readonly kind: "add file";
      readonly id: number;
      readonly descriptor: number;
      readonly position: number;
      readonly sizeBytes: number;
    }
  | { readonly kind: "add"; readonly id: number; readonly data: Uint8Array }
  | { readonly kind: "end"; readonly id: number }
  | {
      readonly kind: "write back";
      readonly descriptor: number;
      readonly position: number;
      readonly sizeBytes: number;
    };

export type FromThread = { readonly digest: string } | { readonly code: ErrorCode; readonly message: string };

/** Where `bun build --compile` puts the entry point. */
const EMBEDDED = "/$bunfs/root/content/digest-worker.js";

/** How long a thread is kept that nobody needs: to start one takes milliseconds, to keep one takes megabytes. */
const IDLE_MS = 10_000;

/** What is read of a file at a time: other digests have their turn between. */
const FILE_STEP_BYTES = 32 << 20;

/** One thread for all ingests, from the first that needs it until a while after the last. */
export class DigestThread {
  #worker: Worker | undefined;
  #waiting: PromiseWithResolvers<string>[] = [];
  readonly #running = new Set<ThreadDigester>();
  #lastId = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;

  /** Begins a digest with what is in an open file. @throws DataLoss if that is not so much, Internal if there is no thread */
  async begin(descriptor: number, sizeBytes: number): Promise<ThreadDigester> {
    this.#lastId += 1;
    const id = this.#lastId;
    const digester = new ThreadDigester({
      ask: (data) => this.#ask({ kind: "add", id, data }),
      writeBack: (descriptor, position, size) =>
        this.#ask({ kind: "write back", descriptor, position, sizeBytes: size }),
      end: () => this.#end(digester, id),
    });
    this.#running.add(digester);
    clearTimeout(this.#idle);
    try {
      let digest = await this.#ask({ kind: "begin", id });
      for (let position = 0; position < sizeBytes; position += FILE_STEP_BYTES) {
        const step = Math.min(FILE_STEP_BYTES, sizeBytes - position);
        digest = await this.#ask({ kind: "add file", id, descriptor, position, sizeBytes: step });
      }
      digester.begun(digest);
      return digester;
    } catch (error) {
      digester.close();
      throw error;
    }
  }

  #ask(message: ToThread): Promise<string> {
    const answer = Promise.withResolvers<string>();
    const worker = this.#started();
    this.#waiting.push(answer);
    worker.postMessage(message);
    return answer.promise;
  }

  #end(digester: ThreadDigester, id: number): void {
    if (!this.#running.delete(digester)) return;
    // A thread that has crashed has forgotten it.
    if (this.#worker !== undefined) this.#ask({ kind: "end", id }).catch(() => undefined);
    if (this.#running.size > 0) return;
    this.#idle = setTimeout(() => this.#stop(), IDLE_MS);
    this.#idle.unref();
  }

  #started(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const isCompiled = Bun.main.startsWith("/$bunfs/");
    const worker = new Worker(isCompiled ? EMBEDDED : new URL("./digest-worker.ts", import.meta.url));
    worker.unref();
    worker.onmessage = ({ data }: MessageEvent<FromThread>) => {
      const answer = this.#waiting.shift();
      if ("digest" in data) answer?.resolve(data.digest);
      else answer?.reject(new BunkerdError(data.code, data.message));
    };
    worker.onerror = ({ message }) => this.#crashed(message);
    this.#worker = worker;
    return worker;
  }

  /** Whatever digests it had begun have gone with it. */
  #crashed(message: string): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#stop();
    for (const answer of waiting) answer.reject(new BunkerdError("Internal", `digest thread: ${message}`));
  }

  #stop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}

interface ThreadCalls {
  ask(data: Uint8Array): Promise<string>;
  writeBack(descriptor: number, position: number, sizeBytes: number): Promise<string>;
  end(): void;
}

/** A running digest in the thread: as `Digester`, but that it takes time. */
export class ThreadDigester {
  readonly algorithm: DigestAlgorithm = CANONICAL_ALGORITHM;
  readonly #calls: ThreadCalls;
  #digest = "";

  constructor(calls: ThreadCalls) {
    this.#calls = calls;
  }

  begun(digest: string): void {
    this.#digest = digest;
  }

  /** `data` must stay as it is until this has settled. Calls must not overlap. */
  async update(data: Uint8Array): Promise<void> {
    this.#digest = await this.#calls.ask(data);
  }

  /** `<algorithm>:<sum>` of what came so far. */
  digest(): string {
    return this.#digest;
  }

  /** Begins to write a range of an open file to disk; resolves when the thread has no more to do with it. */
  async writeBack(descriptor: number, position: number, sizeBytes: number): Promise<void> {
    await this.#calls.writeBack(descriptor, position, sizeBytes);
  }

  close(): void {
    this.#calls.end();
  }
}
