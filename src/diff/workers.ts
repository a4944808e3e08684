import { BunkerdError } from "../model/errors.ts";
import { MAX_WORKERS } from "./limits.ts";
import type { FromWorker, ToWorker } from "./protocol.ts";

/** One job in a thread. */
export interface Job {
  send(message: ToWorker, transfer?: ArrayBuffer[]): void;
  /** What the thread says next. @throws what it failed of */
  receive(): Promise<Exclude<FromWorker, { kind: "failed" }>>;
}

/** Threads for jobs, a few at a time; the rest wait in their order. */
export class Workers {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  /** Runs `work` with a thread, which has ended when it resolves: nothing of the job goes on. */
  async run<T>(work: (job: Job) => Promise<T>): Promise<T> {
    if (this.#running >= MAX_WORKERS) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await runInThread(work);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

/** Where `bun build --compile` puts the entry point: `import.meta.url` is the source's there, on the machine that compiled it. */
const EMBEDDED = "/$bunfs/root/diff/worker.js";

function isCompiled(): boolean {
  return Bun.main.startsWith("/$bunfs/");
}

async function runInThread<T>(work: (job: Job) => Promise<T>): Promise<T> {
  const worker = new Worker(isCompiled() ? EMBEDDED : new URL("./worker.ts", import.meta.url));
  const inbox: FromWorker[] = [];
  let wake: (() => void) | undefined;
  let crashed: Error | undefined;
  let finished = false;
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if (["applied", "compared", "failed"].includes(data.kind)) finished = true;
    inbox.push(data);
    wake?.();
  };
  worker.onerror = ({ message }) => {
    finished = true;
    crashed = new Error(`diff thread: ${message}`);
    wake?.();
  };
  const next = async (): Promise<FromWorker> => {
    for (;;) {
      const message = inbox.shift();
      if (message !== undefined) return message;
      if (crashed !== undefined) throw crashed;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const job: Job = {
    send: (message, transfer = []) => worker.postMessage(message, transfer),
    async receive() {
      const message = await next();
      if (message.kind !== "failed") return message;
      if (message.code === undefined) throw new Error(message.message);
      throw new BunkerdError(message.code, message.message);
    },
  };
  try {
    return await work(job);
  } finally {
    // A thread in the middle of a job still writes: it is told to stop, and waited for, before its mounts go.
    if (!finished) job.send({ kind: "cancel" });
    while (!finished) await next().catch(() => undefined);
    worker.terminate();
  }
}
