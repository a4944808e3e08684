import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  Content,
  type Info,
  type Status,
  StatusSchema,
  WriteAction,
  type WriteContentRequestSchema,
  type WriteContentResponse,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { systemClock } from "../lib/clock.ts";
import type {
  BlobReader,
  CommitOptions,
  ContentStore,
  ContentWriter,
  WriterOptions,
} from "../model/content.ts";
import { BunkerdError, fail, isError } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** What one message of a write carries at most: half of what servers take. */
const PIECE_BYTES = 8 << 20;

type WriteRequest = MessageInitShape<typeof WriteContentRequestSchema>;

/** Content behind a gRPC socket (containerd `core/content/proxy`). */
export function remoteContent(remote: Remote): ContentStore {
  const rpc = remote.service(Content);
  const infoOf = async (scope: Scope, digest: string): Promise<Info> =>
    required((await remote.answer(rpc.info({ digest }, callOptions(scope)))).info, "an info");
  return {
    info: infoOf,
    async update(scope, info, fieldPaths = []) {
      const request = { info, updateMask: { paths: [...fieldPaths] } };
      return required((await remote.answer(rpc.update(request, callOptions(scope)))).info, "an info");
    },
    async list(scope, filters = []) {
      const found: Info[] = [];
      const stream = rpc.list({ filters: [...filters] }, callOptions(scope));
      for await (const { info } of remote.messages(stream)) found.push(...info);
      return found;
    },
    async delete(scope, digest) {
      await remote.answer(rpc.delete({ digest }, callOptions(scope)));
    },
    async open(scope, digest) {
      return remoteReader(remote, scope, digest, Number((await infoOf(scope, digest)).size));
    },
    async status(scope, ref) {
      return required((await remote.answer(rpc.status({ ref }, callOptions(scope)))).status, "a status");
    },
    async listStatuses(scope, filters = []) {
      return (await remote.answer(rpc.listStatuses({ filters: [...filters] }, callOptions(scope)))).statuses;
    },
    async writer(scope, options) {
      return await RemoteWriter.open(remote, scope, options);
    },
    async abort(scope, ref) {
      await remote.answer(rpc.abort({ ref }, callOptions(scope)));
    },
  };
}

function remoteReader(remote: Remote, scope: Scope, digest: string, sizeBytes: number): BlobReader {
  const rpc = remote.service(Content);
  const read = async (target: Uint8Array, position: number): Promise<number> => {
    const wanted = Math.min(target.length, sizeBytes - position);
    if (wanted <= 0) return 0;
    const request = { digest, offset: BigInt(position), size: BigInt(wanted) };
    let count = 0;
    for await (const { data } of remote.messages(rpc.read(request, callOptions(scope)))) {
      target.set(data.subarray(0, wanted - count), count);
      count += data.length;
    }
    if (count < wanted) throw fail("DataLoss", `blob ${digest} ends at byte ${position + count}`);
    return wanted;
  };
  return {
    sizeBytes,
    read,
    async fill(targets, position) {
      const whole = Buffer.allocUnsafe(targets.reduce((size, { length }) => size + length, 0));
      const count = await read(whole, position);
      if (count < whole.length) throw fail("DataLoss", `blob ${digest} ends at byte ${position + count}`);
      let at = 0;
      for (const target of targets) {
        target.set(whole.subarray(at, at + target.length));
        at += target.length;
      }
    },
    async close() {},
  };
}

/** One call of Write: each request has its answer. */
class RemoteWriter implements ContentWriter {
  readonly #remote: Remote;
  readonly #ref: string;
  readonly #clock = systemClock();
  readonly #requests: WriteRequest[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  readonly #answers: AsyncIterator<WriteContentResponse>;
  #last: WriteContentResponse | undefined;
  #status: Status;
  /** What the next write follows. */
  #offset = 0n;

  private constructor(remote: Remote, scope: Scope, { ref, totalBytes = 0n, expected = "" }: WriterOptions) {
    this.#remote = remote;
    this.#ref = ref;
    this.#status = create(StatusSchema, { ref, total: totalBytes, expected });
    const stream = remote.service(Content).write(this.#sent(), callOptions(scope));
    this.#answers = remote.messages(stream);
  }

  /** @throws as {@link ContentStore.writer} */
  static async open(remote: Remote, scope: Scope, options: WriterOptions): Promise<RemoteWriter> {
    const writer = new RemoteWriter(remote, scope, options);
    const { ref, totalBytes: total = 0n, expected = "" } = options;
    writer.#offset = (await writer.#call({ action: WriteAction.STAT, ref, total, expected })).offset;
    return writer;
  }

  status(): Status {
    return this.#status;
  }

  digest(): string {
    return this.#last?.digest ?? "";
  }

  async write(data: Uint8Array): Promise<string> {
    for (let at = 0; at < data.length; at += PIECE_BYTES) {
      const piece = data.subarray(at, at + PIECE_BYTES);
      await this.#call({ action: WriteAction.WRITE, offset: this.#offset, data: piece });
      this.#offset += BigInt(piece.length);
    }
    return this.digest();
  }

  /** A write at 0 drops what is there. */
  async truncate(): Promise<void> {
    await this.#call({ action: WriteAction.WRITE, offset: 0n });
    this.#offset = 0n;
  }

  async commit({ sizeBytes: total = 0n, expected = "", labels = {} }: CommitOptions): Promise<void> {
    const labelled = { labels: { ...labels } };
    try {
      await this.#call({ action: WriteAction.COMMIT, offset: this.#offset, total, expected, ...labelled });
    } finally {
      await this.close();
    }
  }

  /** Resolves when the server has let go of the ingest. */
  async close(): Promise<void> {
    this.#end();
    try {
      while ((await this.#answers.next()).done !== true);
    } catch (error) {
      // Whatever was wrong was told by the call that it was wrong with.
      if (!isError(error)) throw error;
    }
  }

  async #call(request: WriteRequest): Promise<WriteContentResponse> {
    if (this.#ended) throw fail("FailedPrecondition", `cannot write on closed writer of ${this.#ref}`);
    this.#requests.push(request);
    this.#wake?.();
    try {
      const { value, done } = await this.#answers.next();
      if (done === true) throw new BunkerdError("Unavailable", `${this.#remote.address}: write ended`);
      this.#last = value;
      const { offset, total, startedAt } = value;
      // Only STAT tells the time.
      const updatedAt = request.action === WriteAction.STAT ? value.updatedAt : this.#now();
      const times = { ...(startedAt && { startedAt }), ...(updatedAt && { updatedAt }) };
      this.#status = create(StatusSchema, {
        ...this.#status,
        ...times,
        offset,
        total: total || this.#status.total,
      });
      return value;
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  async *#sent(): AsyncGenerator<WriteRequest> {
    for (;;) {
      const next = this.#requests.shift();
      if (next !== undefined) yield next;
      else if (this.#ended) return;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }

  #now(): Timestamp {
    const now = this.#clock.now();
    return create(TimestampSchema, { seconds: now / 1_000_000_000n, nanos: Number(now % 1_000_000_000n) });
  }

  #end(): void {
    this.#ended = true;
    this.#wake?.();
  }
}
