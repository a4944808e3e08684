/** Follows the logs of every container of a pod, each instance from its first line to its last. */
import { followLog, type LogLine } from "./logs.ts";
import type { ObservedPod } from "./status.ts";

export type LineSink = (container: string, line: LogLine) => void;

export class LogFollower {
  readonly #sink: LineSink;
  readonly #onFailure: (error: unknown) => void;
  readonly #ended = new Map<string, () => void>();
  readonly #readers = new Set<Promise<void>>();
  readonly #seen = new Set<string>();
  readonly #closed = new AbortController();

  constructor(sink: LineSink, onFailure: (error: unknown) => void) {
    this.#sink = sink;
    this.#onFailure = onFailure;
  }

  /** Begins with containers that have begun, lets those end that have ended. */
  update({ containers }: ObservedPod): void {
    for (const { id, name, state, logPath } of containers) {
      if (logPath !== "" && state !== "created") this.follow(id, name, logPath);
      if (state === "exited") this.#ended.get(id)?.();
    }
  }

  /** Begins with a container, which may not have begun itself. */
  follow(id: string, name: string, logPath: string): void {
    if (this.#seen.has(id)) return;
    this.#seen.add(id);
    const ended = new Promise<void>((resolve) => this.#ended.set(id, resolve));
    const reader = this.#read(name, logPath, ended);
    this.#readers.add(reader);
    void reader.finally(() => this.#readers.delete(reader));
  }

  /** Nobody wants to hear more. */
  close(): void {
    this.#closed.abort();
  }

  /** Nothing more will be written: resolves when all is read. */
  async finish(): Promise<void> {
    for (const end of this.#ended.values()) end();
    await Promise.all(this.#readers);
  }

  async #read(name: string, path: string, ended: Promise<void>): Promise<void> {
    try {
      for await (const line of followLog(path, { ended, signal: this.#closed.signal }))
        this.#sink(name, line);
    } catch (error) {
      this.#onFailure(error);
    }
  }
}
