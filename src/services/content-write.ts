import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WriteContentResponseSchema } from "#gen/containerd/services/content/v1/content_pb.ts";
import { WriteAction, type WriteContentRequest } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { ContentStore, ContentWriter } from "../model/content.ts";
import { BunkerdError, isError, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";

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
  let session: Session | undefined;
  try {
    for await (const request of requests) {
      session ??= await openSession(content, scope, request);
      yield await session.answer(request);
      if (request.action === WriteAction.COMMIT) break;
    }
    if (session === undefined) throw noReference();
    yield session.last();
  } finally {
    await session?.close();
  }
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

  async answer(request: WriteContentRequest): Promise<Answer> {
    const { action, expected, total } = request;
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
