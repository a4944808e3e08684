import type { OciDescriptor } from "../model/oci.ts";
import type { ProgressListener } from "../model/transfer.ts";
import { refKeyOf } from "./documents.ts";

/** How often the client hears of bytes. */
const INTERVAL_MS = 300;

interface Job {
  readonly descriptor: OciDescriptor;
  readonly name: string;
  readonly parents: readonly string[];
  /** Bytes moved so far, and those told of. */
  moved: number;
  told: number;
  state: "open" | "done" | "told";
}

/** Follows the blobs of a transfer and tells of them at intervals (containerd `core/transfer/local/progress.go`). */
export class ProgressTracker {
  readonly #root: string;
  readonly #event: string;
  readonly #listener: ProgressListener;
  readonly #jobs = new Map<string, Job>();
  readonly #parents = new Map<string, string[]>();
  readonly #timer: ReturnType<typeof setInterval>;

  /** @param event what a blob on its way is said to be: `downloading`, `uploading` */
  constructor(root: string, event: string, listener: ProgressListener) {
    this.#root = root;
    this.#event = event;
    this.#listener = listener;
    this.#timer = setInterval(() => this.#tell(), INTERVAL_MS);
  }

  add(descriptor: OciDescriptor): void {
    if (this.#jobs.has(descriptor.digest)) return;
    const parents = [...(this.#parents.get(descriptor.digest) ?? [this.#root])];
    const name = refKeyOf(descriptor);
    this.#jobs.set(descriptor.digest, { descriptor, name, parents, moved: 0, told: 0, state: "open" });
    this.#listener({ event: "waiting", name, parents, progress: 0, total: descriptor.size, descriptor });
  }

  addChildren(parent: OciDescriptor, children: readonly OciDescriptor[]): void {
    const name = refKeyOf(parent);
    for (const { digest } of children) {
      const parents = this.#parents.get(digest);
      if (parents === undefined) this.#parents.set(digest, [name]);
      else parents.push(name);
    }
  }

  exists(descriptor: OciDescriptor): void {
    const job = this.#jobs.get(descriptor.digest);
    if (job !== undefined) job.state = "told";
    const { size } = descriptor;
    const name = refKeyOf(descriptor);
    this.#listener({ event: "already exists", name, progress: size, total: size, descriptor });
  }

  /** Bytes of the blob that have been moved. */
  moved({ digest }: OciDescriptor, bytes: number): void {
    const job = this.#jobs.get(digest);
    if (job !== undefined) job.moved = bytes;
  }

  done({ digest }: OciDescriptor): void {
    const job = this.#jobs.get(digest);
    if (job?.state === "open") job.state = "done";
  }

  /** Tells of what has not been told. */
  close(): void {
    clearInterval(this.#timer);
    this.#tell();
  }

  #tell(): void {
    for (const job of this.#jobs.values()) {
      const { descriptor, name, parents, moved, told, state } = job;
      const { size } = descriptor;
      if (state === "done") {
        this.#listener({ event: "complete", name, parents, progress: size, total: size, descriptor });
        job.state = "told";
      } else if (state === "open" && moved > told) {
        this.#listener({ event: this.#event, name, parents, progress: moved, total: size, descriptor });
        job.told = moved;
      }
    }
  }
}
