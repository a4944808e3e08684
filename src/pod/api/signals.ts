import { Signal } from "#gen/runtime/v1/api_pb.ts";

/** CRI's number of a `lifecycle.stopSignal`; undefined for what is no signal's name. */
export function signalNumber(name: string): Signal | undefined {
  const key = name.replace("+", "PLUS").replace(/(?<=SIGRTMAX)-/, "MINUS");
  const value = (Signal as unknown as Record<string, unknown>)[key];
  return /^SIG/.test(name) && typeof value === "number" ? (value as Signal) : undefined;
}
