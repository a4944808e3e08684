/** The conformance service's client with its types: the service is declared at run time. */
import type { Payload } from "../grpc/service.ts";

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly headers?: Record<string, string> | [string, string][] | Headers;
}

export interface ConformanceClient {
  echo(request: Partial<Payload>, options?: CallOptions): Promise<Payload>;
  collect(requests: AsyncIterable<Partial<Payload>>, options?: CallOptions): Promise<Payload>;
  spread(request: Partial<Payload>, options?: CallOptions): AsyncIterable<Payload>;
  chat(requests: AsyncIterable<Partial<Payload>>, options?: CallOptions): AsyncIterable<Payload>;
}

export async function textsOf(answers: AsyncIterable<Payload>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of answers) texts.push(text);
  return texts;
}

export async function* ofTexts(...texts: string[]) {
  for (const text of texts) yield { text };
}
