/** A container's status as containerd keeps it in `<root>/containers/<id>/status` (`internal/cri/store/container/status.go`). */
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type ContainerResources, ContainerResourcesSchema, ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import { fromGo, type GoValue, goText, toGo } from "./go-json.ts";

/** Times are nanoseconds since 1970, 0 for not yet. */
export interface ContainerStatus {
  readonly pid: number;
  readonly createdAt: bigint;
  readonly startedAt: bigint;
  readonly finishedAt: bigint;
  readonly exitCode: number;
  readonly reason: string;
  readonly message: string;
  readonly resources: ContainerResources | undefined;
  /** These three are not kept on disk. */
  readonly starting: boolean;
  readonly removing: boolean;
  /** Nothing tells what became of it. */
  readonly unknown: boolean;
}

export const NEW_STATUS: ContainerStatus = {
  pid: 0,
  createdAt: 0n,
  startedAt: 0n,
  finishedAt: 0n,
  exitCode: 0,
  reason: "",
  message: "",
  resources: undefined,
  starting: false,
  removing: false,
  unknown: false,
};

export function stateOf(status: ContainerStatus): ContainerState {
  if (status.unknown) return ContainerState.CONTAINER_UNKNOWN;
  if (status.finishedAt !== 0n) return ContainerState.CONTAINER_EXITED;
  if (status.startedAt !== 0n) return ContainerState.CONTAINER_RUNNING;
  if (status.createdAt !== 0n) return ContainerState.CONTAINER_CREATED;
  return ContainerState.CONTAINER_UNKNOWN;
}

const VERSION = "v1";
const FILE = "status";

/** One container's status in memory and on disk. */
export class StatusFile {
  readonly #path: string;
  #status: ContainerStatus;
  /** What stands on the disk already, and is not told yet. */
  #ahead: Partial<ContainerStatus> = {};
  /** The end of the last write: they go one after the other. */
  #written: Promise<void> = Promise.resolve();

  constructor(folder: string, status: ContainerStatus) {
    this.#path = join(folder, FILE);
    this.#status = status;
  }

  get(): ContainerStatus {
    return this.#status;
  }

  get state(): ContainerState {
    return stateOf(this.#status);
  }

  /** Changes it in memory alone. */
  set(change: Partial<ContainerStatus>): void {
    this.#status = { ...this.#status, ...change };
  }

  /**
   * Changes it on disk, then in memory; changes go in the order of the calls, each from what the one before left.
   * @throws what `change` throws, or Unknown if it cannot be written: then nothing has changed
   */
  save(change: (status: ContainerStatus) => Partial<ContainerStatus>): Promise<void> {
    return this.#write(async () => {
      const changed = change(this.#status);
      await writeStatus(this.#path, { ...this.#status, ...this.#ahead, ...changed });
      this.set(changed);
    });
  }

  /**
   * Changes it on disk alone, until {@link reveal}: for what would be lost if the daemon ended now, and may be told only when more is done.
   * @throws as {@link save}
   */
  saveAhead(change: (status: ContainerStatus) => Partial<ContainerStatus>): Promise<void> {
    return this.#write(async () => {
      const changed = change(this.#status);
      await writeStatus(this.#path, { ...this.#status, ...changed });
      this.#ahead = changed;
    });
  }

  /** What was saved ahead is told from now on. */
  reveal(): void {
    this.set(this.#ahead);
    this.#ahead = {};
  }

  #write(work: () => Promise<void>): Promise<void> {
    const saved = this.#written.then(work);
    // Who saves is told; the next one writes all the same.
    this.#written = saved.catch(() => undefined);
    return saved;
  }

  /** Removes it from the disk; twice is no error. */
  async delete(): Promise<void> {
    await this.#written;
    await rm(this.#path, { force: true });
  }
}

/** @throws Unknown */
export async function loadStatus(folder: string): Promise<ContainerStatus> {
  const path = join(folder, FILE);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw failure(`failed to read status from ${path}`, error);
  }
  try {
    return decode(parseExact(text) as Record<string, unknown>);
  } catch (error) {
    throw failure(`failed to decode status ${path}`, error);
  }
}

function decode(fields: Readonly<Record<string, unknown>>): ContainerStatus {
  if (fields["Version"] !== VERSION) throw new Error("unsupported version");
  const time = (name: string): bigint => BigInt((fields[name] ?? 0) as number | bigint);
  const number = (name: string): number => Number(fields[name] ?? 0);
  const text = (name: string): string => String(fields[name] ?? "");
  const resources = fields["Resources"] ?? undefined;
  return {
    ...NEW_STATUS,
    pid: number("Pid"),
    createdAt: time("CreatedAt"),
    startedAt: time("StartedAt"),
    finishedAt: time("FinishedAt"),
    exitCode: number("ExitCode"),
    reason: text("Reason"),
    message: text("Message"),
    resources: resources === undefined ? undefined : fromGo(ContainerResourcesSchema, resources),
  };
}

function encode(status: ContainerStatus): GoValue {
  const { resources } = status;
  return {
    Version: VERSION,
    Pid: status.pid,
    CreatedAt: status.createdAt,
    StartedAt: status.startedAt,
    FinishedAt: status.finishedAt,
    ExitCode: status.exitCode,
    Reason: status.reason,
    Message: status.message,
    Resources: resources === undefined ? null : toGo(ContainerResourcesSchema, resources),
  };
}

/** Whole or not at all, also after a power cut. */
async function writeStatus(path: string, status: ContainerStatus): Promise<void> {
  const draft = join(dirname(path), ".status");
  try {
    const file = await open(draft, "w", 0o600);
    try {
      await file.writeFile(goText(encode(status)));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    throw failure(`failed to checkpoint status to ${JSON.stringify(path)}`, error);
  }
}

function failure(what: string, cause: unknown): BunkerdError {
  return new BunkerdError("Unknown", `${what}: ${messageOf(cause)}`, { cause });
}
