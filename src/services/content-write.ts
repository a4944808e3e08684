import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WriteContentResponseSchema } from "#gen/containerd/services/content/v1/content_pb.ts";
import { WriteAction, type WriteContentRequest } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { ContentStore, ContentWriter } from "../model/content.ts";
import { BunkerdError, isError, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";

/** Writes of a session under way at once: while one is written another waits and the next is received. Measured. */
export const WRITES_AHEAD = 3;

type Answer = MessageInitShape<typeof WriteContentResponseSchema>;

/**
 * One session of Write (containerd `contentserver.go`): each request is answered with the state after it; a commit ends the session, and
 * so does the client, which leaves the ingest to be resumed. As containerd's, the session's last answer comes twice.
 */
export async function* writeContent(
  content: ContentStore,
  scope: () => Scope,
  requests: AsyncIterable<WriteContentRequest>,
): AsyncGenerator<Answer> {
  const source = requests[Symbol.asyncIterator]();
  const underWay: Promise<Answer>[] = [];
  let next: Promise<IteratorResult<WriteContentRequest>> | undefined;
  let session: Session | undefined;
  try {
    for (;;) {
      if (underWay.length < WRITES_AHEAD) next ??= observed(source.next());
      const [oldest] = underWay;
      if (oldest !== undefined && (next === undefined || (await isFirst(oldest, next)))) {
        yield await oldest;
        void underWay.shift();
        continue;
      }
      const request = await next;
      next = undefined;
      if (request === undefined || request.done === true) break;
      session ??= await openSession(content, scope, request.value);
      if (session.mayOverlap(request.value)) {
        underWay.push(observed(session.append(request.value)));
        continue;
      }
      for (let answer = underWay[0]; answer !== undefined; answer = underWay[0]) {
        yield await answer;
        void underWay.shift();
      }
      yield await session.answer(request.value);
      if (request.value.action === WriteAction.COMMIT) break;
    }
    for (const answer of underWay) yield await answer;
    if (session === undefined) throw noReference();
    yield session.last();
  } finally {
    await Promise.allSettled(underWay);
    await source.return?.();
    await session?.close();
  }
}

/** Whoever comes to await it hears of its failure, nobody else. */
function observed<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/** Waits for either. @throws what the first of them failed of */
function isFirst(one: Promise<unknown>, other: Promise<unknown>): Promise<boolean> {
  return Promise.race([one.then(() => true), other.then(() => false)]);
}

function noReference(): BunkerdError {
  return new BunkerdError("InvalidArgument", "first message must have a reference");
}

async function openSession(
  content: ContentStore,
  scopeOf: () => Scope,
  { ref, total, expected }: WriteContentRequest,
): Promise<Session> {
  if (ref === "") throw noReference();
  const scope = scopeOf();
  const writer = await content.writer(scope, { ref, totalBytes: total > 0n ? total : 0n, expected });
  return new Session(content, scope, ref, total, writer);
}

class Session {
  readonly #content: ContentStore;
  readonly #scope: Scope;
  readonly #ref: string;
  readonly #writer: ContentWriter;
  /** As announced last; a negative one is ignored but repeated, as containerd does. */
  #totalBytes: bigint;
  #expected = "";
  /** Behind the writes that are under way. */
  #nextOffset: bigint | undefined;
  /** containerd reuses one message, so that what a STAT has filled in stays. */
  #answer: Answer = {};

  constructor(content: ContentStore, scope: Scope, ref: string, totalBytes: bigint, writer: ContentWriter) {
    this.#content = content;
    this.#scope = scope;
    this.#ref = ref;
    this.#totalBytes = totalBytes;
    this.#writer = writer;
  }

  last(): Answer {
    return this.#answer;
  }

  close(): Promise<void> {
    return this.#writer.close();
  }

  /** A plain write behind what was written or is being written. */
  mayOverlap({ action, expected, total, offset, data }: WriteContentRequest): boolean {
    if (this.#writer.overlaps !== true || action !== WriteAction.WRITE || expected !== "" || total > 0n)
      return false;
    this.#nextOffset ??= this.#writer.status().offset;
    return data.length > 0 && offset > 0n && offset === this.#nextOffset;
  }

  /** Answers a request that may overlap with those before it, which then end before it does. */
  async append({ action, offset, data }: WriteContentRequest): Promise<Answer> {
    const end = offset + BigInt(data.length);
    this.#nextOffset = end;
    const digest = await this.#writer.write(data);
    this.#answer = { ...this.#answer, action, offset: end, digest };
    return this.#answer;
  }

  /** To be called when what was appended has ended. */
  async answer(request: WriteContentRequest): Promise<Answer> {
    const { action, expected, total } = request;
    this.#nextOffset = undefined;
    const status = this.#writer.status();
    this.#answer = { ...this.#answer, action, offset: status.offset };
    if (expected !== "") {
      this.#expected = expected;
      await this.#refuseExisting(expected);
    }
    if (total > 0n) this.#totalBytes = total;
    if (action === WriteAction.STAT) {
      const { startedAt, updatedAt } = status;
      const times = { ...(startedAt && { startedAt }), ...(updatedAt && { updatedAt }) };
      const digest = this.#writer.digest();
      this.#answer = { ...this.#answer, ...times, digest, total: this.#totalBytes };
    } else if (action === WriteAction.WRITE || action === WriteAction.COMMIT) {
      await this.#write(request, status.offset);
      if (action === WriteAction.COMMIT) await this.#commit(request);
      this.#answer = { ...this.#answer, digest: this.#writer.digest() };
    }
    return this.#answer;
  }

  /** @throws AlreadyExists; the ingest is gone then */
  async #refuseExisting(digest: string): Promise<void> {
    if (!(await this.#exists(digest))) return;
    await this.#writer.close();
    await this.#content.abort(this.#scope, this.#ref);
    throw new BunkerdError("AlreadyExists", `blob with expected digest ${digest} exists`);
  }

  async #exists(digest: string): Promise<boolean> {
    try {
      await this.#content.info(this.#scope, digest);
      return true;
    } catch (error) {
      if (isError(error, "NotFound")) return false;
      throw error;
    }
  }

  /** @throws OutOfRange if an offset is named that is not where the ingest ends */
  async #write({ offset, data }: WriteContentRequest, at: bigint): Promise<void> {
    if (offset > 0n && offset !== at) {
      throw new BunkerdError("OutOfRange", `write @${offset} must occur at current offset ${at}`);
    }
    let written = at;
    if (offset === 0n && at > 0n) {
      try {
        await this.#writer.truncate();
      } catch (error) {
        throw within("truncate failed", error);
      }
      written = 0n;
    }
    if (data.length > 0) await this.#writer.write(data);
    this.#answer = { ...this.#answer, offset: written + BigInt(data.length) };
  }

  async #commit({ labels }: WriteContentRequest): Promise<void> {
    await this.#writer.commit({
      sizeBytes: this.#totalBytes > 0n ? this.#totalBytes : 0n,
      expected: this.#expected,
      labels,
    });
  }
}
