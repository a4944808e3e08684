/** Stands before a registry: counts what is asked for, and holds or changes answers. */
import type { Registry } from "./registry.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly range: string | null;
}

export class RegistryProxy {
  readonly asked: Asked[] = [];
  /** Requests for blobs that are being answered, and the most of them at a time. */
  underway = 0;
  mostUnderway = 0;
  /** Of the blob's answer: so many bytes come, then nothing, until it is released. */
  readonly #held = new Map<string, { readonly bytes: number; readonly released: Promise<void> }>();
  readonly #changed = new Map<string, Buffer>();
  /** Clients that left before the end of an answer. */
  gone = 0;
  password: string | undefined;
  readonly #server;
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  get host(): string {
    return `127.0.0.1:${this.#server.port}`;
  }

  /** Answers of the blob stop after `bytes`; the function returned lets them go on. */
  hold(digest: string, bytes: number): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.set(digest, { bytes, released: promise });
    return () => {
      this.#held.delete(digest);
      resolve();
    };
  }

  /** Answers something else for the blob; undefined: itself again. */
  change(digest: string, bytes: Buffer | undefined): void {
    if (bytes === undefined) this.#changed.delete(digest);
    else this.#changed.set(digest, bytes);
  }

  blobRequests(digest: string): Asked[] {
    return this.asked.filter(({ method, path }) => method === "GET" && path.endsWith(`/blobs/${digest}`));
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const { method } = request;
    const expected = this.password === undefined ? null : `Basic ${btoa(this.password)}`;
    if (expected !== null && request.headers.get("authorization") !== expected) {
      return new Response("{}", { status: 401, headers: { "www-authenticate": 'Basic realm="test"' } });
    }
    this.asked.push({ method, path: pathname, range: request.headers.get("range") });
    const headers = new Headers(request.headers);
    headers.set("host", this.#registry.host);
    headers.set("accept-encoding", "identity");
    headers.delete("authorization");
    const body = method === "GET" || method === "HEAD" ? null : await request.arrayBuffer();
    const answer = await fetch(`http://${this.#registry.host}${pathname}${search}`, {
      ...{ method, headers, body, redirect: "manual", decompress: false },
    });
    const digest = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(pathname)?.[1];
    if (method !== "GET" || digest === undefined || !answer.ok) return answer;
    const bytes = this.#changed.get(digest) ?? Buffer.from(await answer.arrayBuffer());
    return new Response(this.#stream(digest, bytes), { status: answer.status, headers: answer.headers });
  }

  #stream(digest: string, bytes: Buffer): ReadableStream {
    this.underway += 1;
    this.mostUnderway = Math.max(this.mostUnderway, this.underway);
    const held = this.#held.get(digest);
    let isOver = false;
    const over = (): void => {
      if (!isOver) this.underway -= 1;
      isOver = true;
    };
    return new ReadableStream({
      start: async (controller) => {
        const first = held?.bytes ?? bytes.length;
        controller.enqueue(bytes.subarray(0, first));
        await (held?.released ?? Bun.sleep(10));
        if (isOver) return;
        if (first < bytes.length) controller.enqueue(bytes.subarray(first));
        controller.close();
        over();
      },
      cancel: () => {
        this.gone += 1;
        over();
      },
    });
  }
}
