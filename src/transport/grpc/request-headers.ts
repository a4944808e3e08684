import type { GrpcStream } from "./stream.ts";

/** What a request says before its body. */
export type RequestHead = Pick<GrpcStream, "method" | "path" | "header" | "headers">;

/**
 * A stream's request headers as `Headers`. `get` and `has` ask the stream; everything else, a change too, goes to a real
 * `Headers` made at that moment. Binary fields (`-bin`) keep their base64, as Connect has it.
 */
export class RequestHeaders implements Headers {
  readonly #stream: RequestHead;
  #made: Headers | undefined;

  constructor(stream: RequestHead) {
    this.#stream = stream;
  }

  get(name: string): string | null {
    if (this.#made !== undefined) return this.#made.get(name);
    return this.#stream.header(name.toLowerCase()) ?? null;
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  get #all(): Headers {
    if (this.#made === undefined) {
      this.#made = new Headers();
      for (const [name, value] of this.#stream.headers()) this.#made.append(name, value);
    }
    return this.#made;
  }

  append(name: string, value: string): void {
    this.#all.append(name, value);
  }

  set(name: string, value: string): void {
    this.#all.set(name, value);
  }

  delete(name: string): void {
    this.#all.delete(name);
  }

  forEach(callback: Parameters<Headers["forEach"]>[0], self?: unknown): void {
    this.#all.forEach(callback, self);
  }

  getAll(name: "set-cookie" | "Set-Cookie"): string[] {
    return this.#all.getAll(name);
  }

  getSetCookie(): string[] {
    return this.#all.getSetCookie();
  }

  toJSON(): ReturnType<Headers["toJSON"]> {
    return this.#all.toJSON();
  }

  get count(): number {
    return this.#all.count;
  }

  entries(): ReturnType<Headers["entries"]> {
    return this.#all.entries();
  }

  keys(): ReturnType<Headers["keys"]> {
    return this.#all.keys();
  }

  values(): ReturnType<Headers["values"]> {
    return this.#all.values();
  }

  [Symbol.iterator](): ReturnType<Headers["entries"]> {
    return this.#all.entries();
  }
}
