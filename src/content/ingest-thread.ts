import { availableParallelism } from "node:os";
import { CANONICAL_ALGORITHM, type DigestAlgorithm } from "../model/digests.ts";
import { BunkerdError, type ErrorCode } from "../model/errors.ts";

/* Large ingests, written and summed by threads while the daemon's own receives what follows. */

/** To the thread, which answers each in its order. Shared memory stays where it is, other is copied. */
export type ToThread =
  | { readonly kind: "begin"; readonly id: number }
  /** Adds a range of a file that is open to the digest. */
  | {
      readonly kind: "add file";
      readonly id: number;
      readonly descriptor: number;
      readonly position: number;
      readonly sizeBytes: number;
    }
  /** Writes to an open file, and adds to the digest. Once that has failed it fails for all that follows. */
  | {
      readonly kind: "write";
      readonly id: number;
      readonly descriptor: number;
      readonly position: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: "end"; readonly id: number };

export type FromThread = { readonly digest: string } | { readonly code: ErrorCode; readonly message: string };

/** Where `bun build --compile` puts the entry point. */
const EMBEDDED = "/$bunfs/root/content/ingest-worker.js";

/** How long a thread is kept that nobody needs: to start one takes milliseconds, to keep one takes megabytes. */
const IDLE_MS = 10_000;

/** What is read of a file at a time: other digests have their turn between. */
const FILE_STEP_BYTES = 32 << 20;

/** Threads at once: one processor is left to receive, and more than four are faster than disks are. */
const MAX_THREADS = Math.min(Math.max(availableParallelism() - 1, 1), 4);

/** The threads of all ingests, each from the first ingest that needs it until a while after the last. */
export class IngestThreads {
  readonly #threads: IngestThread[] = [];

  /** Begins a digest with what is in an open file. @throws DataLoss if that is not so much, Internal if there is no thread */
  begin(descriptor: number, sizeBytes: number): Promise<ThreadDigester> {
    return this.#freest().begin(descriptor, sizeBytes);
  }

  #freest(): IngestThread {
    const [freest] = this.#threads.toSorted((one, other) => one.load - other.load);
    if (freest !== undefined && (freest.load === 0 || this.#threads.length === MAX_THREADS)) return freest;
    const thread = new IngestThread();
    this.#threads.push(thread);
    return thread;
  }
}

class IngestThread {
  #worker: Worker | undefined;
  #waiting: PromiseWithResolvers<string>[] = [];
  readonly #running = new Set<ThreadDigester>();
  #lastId = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;

  /** Ingests that it has. */
  get load(): number {
    return this.#running.size;
  }

  async begin(descriptor: number, sizeBytes: number): Promise<ThreadDigester> {
    this.#lastId += 1;
    const id = this.#lastId;
    const digester = new ThreadDigester({
      write: (descriptor, position, data) => this.#ask({ kind: "write", id, descriptor, position, data }),
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
    const worker = new Worker(isCompiled ? EMBEDDED : new URL("./ingest-worker.ts", import.meta.url));
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
    for (const answer of waiting) answer.reject(new BunkerdError("Internal", `ingest thread: ${message}`));
  }

  #stop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}

interface ThreadCalls {
  write(descriptor: number, position: number, data: Uint8Array): Promise<string>;
  end(): void;
}

/** A running digest in a thread: as `Digester`, but that it takes time, and what is added is written to the ingest's file as well. */
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

  /**
   * Writes `data`, which must stay as it is until this has settled, and answers the digest of what came so far. Calls may overlap: they are
   * carried out in their order, and behind one that fails all fail. @throws ResourceExhausted … as the disk has it
   */
  async write(descriptor: number, position: number, data: Uint8Array): Promise<string> {
    const digest = await this.#calls.write(descriptor, position, data);
    this.#digest = digest;
    return digest;
  }

  /** `<algorithm>:<sum>` of what came so far. */
  digest(): string {
    return this.#digest;
  }

  close(): void {
    this.#calls.end();
  }
}
