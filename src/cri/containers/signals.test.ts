import { expect, test } from "bun:test";
import { Signal } from "#gen/runtime/v1/api_pb.ts";
import { criSignal, signalName, signalNumber } from "./signals.ts";

test.each([
  ["SIGTERM", 15],
  ["term", 15],
  ["9", 9],
  ["SIGRTMIN", 34],
  ["SIGRTMIN+3", 37],
  ["RTMAX-1", 63],
  ["SIGRTMAX", 64],
])("%s is %d", (name, number) => {
  expect(signalNumber(name)).toBe(number);
});

test.each(["", "0", "SIGNONE", "SIGRTMIN-1", "SIGRTMIN+40"])("%s is none", (name) => {
  expect(() => signalNumber(name)).toThrow(`invalid signal: ${name}`);
});

test("CRI's names and containers' are each other's", () => {
  expect(signalName(Signal.SIGRTMINPLUS1)).toBe("SIGRTMIN+1");
  expect(criSignal("SIGRTMIN+1")).toBe(Signal.SIGRTMINPLUS1);
  expect(signalName(Signal.RUNTIME_DEFAULT)).toBe("");
  expect(criSignal("15")).toBe(Signal.RUNTIME_DEFAULT);
  expect(() => signalName(9999 as Signal)).toThrow("unknown CRI stop signal 9999: invalid argument");
});
