/** What a probe has come to. */
import { messageOf } from "../../model/errors.ts";

export interface Outcome {
  readonly result: "success" | "warning" | "failure";
  readonly output: string;
}

export const failure = (output: string): Outcome => ({ result: "failure", output });

const DIAL_WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connect: connection refused",
  ConnectionRefused: "connect: connection refused",
  EHOSTUNREACH: "connect: no route to host",
  ENETUNREACH: "connect: network is unreachable",
  ECONNRESET: "read: connection reset by peer",
  ETIMEDOUT: "i/o timeout",
};

/** As Go's net package words what went wrong. */
export function dialWords(error: unknown): string {
  const code = (error as { code?: unknown }).code;
  return (typeof code === "string" ? DIAL_WORDS[code] : undefined) ?? messageOf(error);
}
