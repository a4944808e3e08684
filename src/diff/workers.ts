import { BunkerdError } from "../model/errors.ts";
import { MAX_WORKERS, THREAD_IDLE_MS } from "./limits.ts";
import type { FromWorker, ToWorker } from "./protocol.ts";

/** One job in a thread. */
export interface Job {
  send(message: ToWorker, transfer?: ArrayBuffer[]): void;
  /** What the thread says next. @throws what it failed of */
  receive(): Promise<Exclude<FromWorker, { kind: "failed" }>>;
}

/** Threads for jobs, a few at a time; the rest wait in their order. A thread that is done waits a moment for another job. */
export class Workers {
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #idle: Thread[] = [];

  /** Runs `work` with a thread, which is done with it when it resolves: nothing of the job goes on. */
  async run<T>(work: (job: Job) => Promise<T>): Promise<T> {
    if (this.#running >= MAX_WORKERS) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    const thread = this.#idle.pop() ?? new Thread();
    let isWell = false;
    try {
      const result = await thread.run(work);
      isWell = true;
      return result;
    } finally {
      if (isWell) this.#rest(thread);
      else thread.end();
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  #rest(thread: Thread): void {
    this.#idle.push(thread);
    thread.rest(() => {
      this.#idle.splice(this.#idle.indexOf(thread), 1);
      thread.end();
    });
  }
}

/** Where `bun build --compile` puts the entry point: `import.meta.url` is the source's there, on the machine that compiled it. */
const EMBEDDED = "/$bunfs/root/diff/worker.js";

function isCompiled(): boolean {
  return Bun.main.startsWith("/$bunfs/");
}

class Thread {
  readonly #worker = new Worker(isCompiled() ? EMBEDDED : new URL("./worker.ts", import.meta.url));
  readonly #inbox: FromWorker[] = [];
  #wake: (() => void) | undefined;
  #crashed: Error | undefined;
  #isDone = false;
  #idle: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (["applied", "compared", "failed"].includes(data.kind)) this.#isDone = true;
      this.#inbox.push(data);
      this.#wake?.();
    };
    this.#worker.onerror = ({ message }) => {
      this.#isDone = true;
      this.#crashed = new Error(`diff thread: ${message}`);
      this.#wake?.();
    };
  }

  /** Calls must not overlap. A thread whose job failed is of no further use. */
  async run<T>(work: (job: Job) => Promise<T>): Promise<T> {
    clearTimeout(this.#idle);
    this.#worker.ref();
    this.#isDone = false;
    this.#inbox.length = 0;
    const job: Job = {
      send: (message, transfer = []) => this.#worker.postMessage(message, transfer),
      receive: async () => {
        const message = await this.#next();
        if (message.kind !== "failed") return message;
        if (message.code === undefined) throw new Error(message.message);
        throw new BunkerdError(message.code, message.message);
      },
    };
    try {
      return await work(job);
    } finally {
      // A thread in the middle of a job still writes: it is told to stop, and waited for, before its mounts go.
      if (!this.#isDone) job.send({ kind: "cancel" });
      while (!this.#isDone) await this.#next().catch(() => undefined);
    }
  }

  /** Calls `onEnough` unless another job comes soon. Keeps no process from ending. */
  rest(onEnough: () => void): void {
    this.#worker.unref();
    this.#idle = setTimeout(onEnough, THREAD_IDLE_MS);
    this.#idle.unref();
  }

  end(): void {
    this.#worker.terminate();
  }

  async #next(): Promise<FromWorker> {
    for (;;) {
      const message = this.#inbox.shift();
      if (message !== undefined) return message;
      if (this.#crashed !== undefined) throw this.#crashed;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
